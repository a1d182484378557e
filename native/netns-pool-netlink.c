/* Netlink messages: building, sending, reading answers (netlink(7), rtnetlink(7)). */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netns-pool.h"

static uint32_t next_sequence = 1;

int netlink_open(int protocol, uint32_t groups)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
	if (fd < 0)
		return -errno;
	struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = groups};
	int one = 1;
	/* Without the copy of the request an acknowledgement is 36 bytes. */
	(void)setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof one);
	if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) {
		int error = -errno;
		close(fd);
		return error;
	}
	return fd;
}

void netlink_begin(struct netlink_batch *batch)
{
	batch->length = 0;
	batch->message = 0;
	batch->count = 0;
	batch->may_fail = 0;
	batch->first_sequence = next_sequence;
}

/* Every batch is of a size known when this is compiled; one that does not fit is a mistake in this program. */
static void *reserve(struct netlink_batch *batch, size_t bytes)
{
	size_t aligned = NLMSG_ALIGN(bytes);
	if (batch->length + aligned > sizeof batch->buffer)
		__builtin_trap();
	void *place = batch->buffer + batch->length;
	memset(place, 0, aligned);
	batch->length += aligned;
	if (batch->count > 0) {
		struct nlmsghdr *message = (struct nlmsghdr *)(void *)(batch->buffer + batch->message);
		message->nlmsg_len = (uint32_t)(batch->length - batch->message);
	}
	return place;
}

void *netlink_message(struct netlink_batch *batch, uint16_t type, uint16_t flags, size_t header_bytes)
{
	batch->message = batch->length;
	batch->count++;
	struct nlmsghdr *message = reserve(batch, sizeof *message);
	message->nlmsg_type = type;
	message->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	message->nlmsg_seq = next_sequence++;
	return reserve(batch, header_bytes);
}

void netlink_attribute(struct netlink_batch *batch, uint16_t type, const void *data, size_t bytes)
{
	struct nlattr *attribute = reserve(batch, NLA_HDRLEN + bytes);
	attribute->nla_type = type;
	attribute->nla_len = (uint16_t)(NLA_HDRLEN + bytes);
	if (bytes > 0)
		memcpy((char *)attribute + NLA_HDRLEN, data, bytes);
}

void netlink_text(struct netlink_batch *batch, uint16_t type, const char *text)
{
	netlink_attribute(batch, type, text, strlen(text) + 1);
}

void netlink_u8(struct netlink_batch *batch, uint16_t type, uint8_t value)
{
	netlink_attribute(batch, type, &value, sizeof value);
}

void netlink_u32(struct netlink_batch *batch, uint16_t type, uint32_t value)
{
	netlink_attribute(batch, type, &value, sizeof value);
}

size_t netlink_nest(struct netlink_batch *batch, uint16_t type)
{
	size_t start = batch->length;
	netlink_attribute(batch, type, NULL, 0);
	return start;
}

void *netlink_raw(struct netlink_batch *batch, size_t bytes)
{
	return reserve(batch, bytes);
}

void netlink_end(struct netlink_batch *batch, size_t nest)
{
	struct nlattr *attribute = (struct nlattr *)(void *)(batch->buffer + nest);
	attribute->nla_len = (uint16_t)(batch->length - nest);
}

static int send_batch(int fd, const struct netlink_batch *batch)
{
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	for (;;) {
		ssize_t sent = sendto(fd, batch->buffer, batch->length, 0, (struct sockaddr *)&kernel, sizeof kernel);
		if (sent >= 0)
			return 0;
		if (errno != EINTR)
			return -errno;
	}
}

/* One datagram of answers; its length or a negative errno. */
static int receive(int fd, char *buffer, size_t bytes)
{
	for (;;) {
		ssize_t got = recv(fd, buffer, bytes, 0);
		if (got >= 0)
			return (int)got;
		if (errno != EINTR)
			return -errno;
	}
}

int netlink_run(int fd, struct netlink_batch *batch)
{
	for (size_t at = 0; at < batch->length;) {
		struct nlmsghdr *message = (struct nlmsghdr *)(void *)(batch->buffer + at);
		message->nlmsg_flags |= NLM_F_ACK;
		at += NLMSG_ALIGN(message->nlmsg_len);
	}
	int result = send_batch(fd, batch);
	if (result < 0)
		return result;
	_Alignas(NLMSG_ALIGNTO) char answer[4096];
	unsigned pending = batch->count;
	while (pending > 0) {
		int left = receive(fd, answer, sizeof answer);
		if (left < 0)
			return left;
		for (struct nlmsghdr *message = (void *)answer; NLMSG_OK(message, (unsigned)left);
		     message = NLMSG_NEXT(message, left)) {
			uint32_t index = message->nlmsg_seq - batch->first_sequence;
			if (message->nlmsg_type != NLMSG_ERROR || index >= batch->count)
				continue;
			const struct nlmsgerr *error = NLMSG_DATA(message);
			pending--;
			if (error->error < 0 && result == 0 && !(batch->may_fail & (1u << index)))
				result = error->error;
		}
	}
	return result;
}

int netlink_query(int fd, struct netlink_batch *batch, netlink_visitor visit, void *context)
{
	int result = send_batch(fd, batch);
	if (result < 0)
		return result;
	_Alignas(NLMSG_ALIGNTO) static char answer[65536];
	bool dump = (((struct nlmsghdr *)(void *)batch->buffer)->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
	for (;;) {
		int left = receive(fd, answer, sizeof answer);
		if (left < 0)
			return left;
		for (struct nlmsghdr *message = (void *)answer; NLMSG_OK(message, (unsigned)left);
		     message = NLMSG_NEXT(message, left)) {
			if (message->nlmsg_seq != batch->first_sequence)
				continue;
			if (message->nlmsg_type == NLMSG_DONE)
				return result;
			if (message->nlmsg_type == NLMSG_ERROR)
				return ((const struct nlmsgerr *)NLMSG_DATA(message))->error;
			if (result == 0)
				result = visit(message, context);
			if (!dump)
				return result;
		}
	}
}

const void *netlink_find(const struct nlmsghdr *message, size_t header_bytes, uint16_t type, size_t *bytes)
{
	const char *at = (const char *)NLMSG_DATA(message) + NLMSG_ALIGN(header_bytes);
	const char *end = (const char *)message + message->nlmsg_len;
	while (end - at >= (ptrdiff_t)NLA_HDRLEN) {
		const struct nlattr *attribute = (const void *)at;
		if (attribute->nla_len < NLA_HDRLEN || attribute->nla_len > end - at)
			return NULL;
		if ((attribute->nla_type & NLA_TYPE_MASK) == type) {
			*bytes = (size_t)(attribute->nla_len - NLA_HDRLEN);
			return at + NLA_HDRLEN;
		}
		at += NLA_ALIGN(attribute->nla_len);
	}
	return NULL;
}
