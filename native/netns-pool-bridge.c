/* Links of the host: the daemon's bridge, its addresses and its ports. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netns-pool.h"

int sysctl_write(const char *path, const char *value)
{
	char file[128];
	if (snprintf(file, sizeof file, "/proc/sys/%s", path) >= (int)sizeof file)
		return -ENAMETOOLONG;
	int fd = open(file, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	ssize_t written = write(fd, value, strlen(value));
	int result = written < 0 ? -errno : 0;
	close(fd);
	return result;
}

/* RFC 2863's "up", as linux/if.h has it, which musl's net/if.h excludes. */
#define OPERATIONAL 6

/* An attribute inside a nested one; NULL when there is none. */
static const void *find_nested(const char *nest, size_t bytes, uint16_t type, size_t *found)
{
	for (size_t at = 0; nest != NULL && at + NLA_HDRLEN <= bytes;) {
		const struct nlattr *attribute = (const void *)(nest + at);
		if (attribute->nla_len < NLA_HDRLEN || attribute->nla_len > bytes - at)
			return NULL;
		if ((attribute->nla_type & NLA_TYPE_MASK) == type) {
			*found = attribute->nla_len - NLA_HDRLEN;
			return nest + at + NLA_HDRLEN;
		}
		at += NLA_ALIGN(attribute->nla_len);
	}
	return NULL;
}

static int read_link(const struct nlmsghdr *message, void *context)
{
	struct link_info *info = context;
	if (message->nlmsg_type != RTM_NEWLINK)
		return 0;
	info->index = ((const struct ifinfomsg *)NLMSG_DATA(message))->ifi_index;
	size_t bytes, nested;
	const uint8_t *state = netlink_find(message, sizeof(struct ifinfomsg), IFLA_OPERSTATE, &bytes);
	info->running = state != NULL && bytes == 1 && *state == OPERATIONAL;
	const void *mac = netlink_find(message, sizeof(struct ifinfomsg), IFLA_ADDRESS, &bytes);
	if (mac != NULL && bytes == MAC_BYTES)
		memcpy(info->mac, mac, MAC_BYTES);
	const char *nest = netlink_find(message, sizeof(struct ifinfomsg), IFLA_LINKINFO, &bytes);
	const char *kind = find_nested(nest, bytes, IFLA_INFO_KIND, &nested);
	if (kind != NULL)
		(void)snprintf(info->kind, sizeof info->kind, "%.*s", (int)nested, kind);
	const char *port = find_nested(nest, bytes, IFLA_INFO_SLAVE_DATA, &nested);
	state = find_nested(port, nested, IFLA_BRPORT_STATE, &bytes);
	info->forwarding = state != NULL && bytes == 1 && *state == BR_STATE_FORWARDING;
	return 0;
}

int link_find(int socket, const char *name, struct link_info *info)
{
	struct netlink_batch batch;
	memset(info, 0, sizeof *info);
	netlink_begin(&batch);
	(void)netlink_message(&batch, RTM_GETLINK, 0, sizeof(struct ifinfomsg));
	netlink_text(&batch, IFLA_IFNAME, name);
	int result = netlink_query(socket, &batch, read_link, info);
	return result == -ENODEV ? 0 : result;
}

int link_delete(int socket, const char *name)
{
	struct netlink_batch batch;
	netlink_begin(&batch);
	(void)netlink_message(&batch, RTM_DELLINK, 0, sizeof(struct ifinfomsg));
	netlink_text(&batch, IFLA_IFNAME, name);
	int result = netlink_run(socket, &batch);
	return result == -ENODEV ? 0 : result;
}

static int bridge_create(int socket, const char *name, const uint8_t mac[MAC_BYTES])
{
	struct netlink_batch batch;
	netlink_begin(&batch);
	(void)netlink_message(&batch, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof(struct ifinfomsg));
	netlink_text(&batch, IFLA_IFNAME, name);
	/* A bridge without an address of its own takes the lowest of its ports: it would change with every container. */
	netlink_attribute(&batch, IFLA_ADDRESS, mac, MAC_BYTES);
	size_t info = netlink_nest(&batch, IFLA_LINKINFO);
	netlink_text(&batch, IFLA_INFO_KIND, "bridge");
	netlink_end(&batch, info);
	return netlink_run(socket, &batch);
}

int bridge_ensure(int socket, const char *name, const uint8_t mac[MAC_BYTES], bool *own)
{
	struct link_info info;
	int result = link_find(socket, name, &info);
	if (result < 0)
		return result;
	if (info.index == 0) {
		result = bridge_create(socket, name, mac);
		if (result < 0 && result != -EEXIST)
			return result;
		result = link_find(socket, name, &info);
		if (result < 0)
			return result;
	}
	if (strcmp(info.kind, "bridge") != 0)
		return -EEXIST;
	*own = memcmp(info.mac, mac, MAC_BYTES) == 0;
	/* No link-local address and no router advertisements taken from a container. */
	char path[64];
	(void)snprintf(path, sizeof path, "net/ipv6/conf/%s/disable_ipv6", name);
	(void)sysctl_write(path, "1");
	struct netlink_batch batch;
	netlink_begin(&batch);
	struct ifinfomsg *header = netlink_message(&batch, RTM_NEWLINK, 0, sizeof *header);
	header->ifi_index = info.index;
	header->ifi_flags = IFF_UP;
	header->ifi_change = IFF_UP;
	result = netlink_run(socket, &batch);
	return result < 0 ? result : info.index;
}

int bridge_address(int socket, const char *name, bool add, uint32_t address, unsigned prefix)
{
	struct link_info info;
	int result = link_find(socket, name, &info);
	if (result < 0)
		return result;
	if (info.index == 0)
		return -ENODEV;
	struct netlink_batch batch;
	netlink_begin(&batch);
	struct ifaddrmsg *header = netlink_message(&batch, add ? RTM_NEWADDR : RTM_DELADDR,
						   add ? NLM_F_CREATE | NLM_F_EXCL : 0, sizeof *header);
	header->ifa_family = AF_INET;
	header->ifa_prefixlen = (uint8_t)prefix;
	header->ifa_index = (uint32_t)info.index;
	netlink_u32(&batch, IFA_LOCAL, address);
	netlink_u32(&batch, IFA_ADDRESS, address);
	if (add && prefix < 31)
		netlink_u32(&batch, IFA_BROADCAST, address | htonl(0xffffffffu >> prefix));
	return netlink_run(socket, &batch);
}

struct listing {
	int index;
	char *text;
	size_t bytes;
	size_t used;
};

static int append(struct listing *listing, const char *word)
{
	int wrote = snprintf(listing->text + listing->used, listing->bytes - listing->used, " %s", word);
	if (wrote < 0 || (size_t)wrote >= listing->bytes - listing->used)
		return -ENOBUFS;
	listing->used += (size_t)wrote;
	return 0;
}

static int list_address(const struct nlmsghdr *message, void *context)
{
	struct listing *listing = context;
	const struct ifaddrmsg *header = NLMSG_DATA(message);
	if (message->nlmsg_type != RTM_NEWADDR || header->ifa_index != (uint32_t)listing->index)
		return 0;
	size_t bytes;
	const void *local = netlink_find(message, sizeof *header, IFA_LOCAL, &bytes);
	char address[INET_ADDRSTRLEN];
	if (local == NULL || bytes != 4 || inet_ntop(AF_INET, local, address, sizeof address) == NULL)
		return 0;
	char word[INET_ADDRSTRLEN + 4];
	(void)snprintf(word, sizeof word, "%s/%u", address, header->ifa_prefixlen);
	return append(listing, word);
}

int link_addresses(int socket, const char *name, char *text, size_t bytes)
{
	struct link_info info;
	int result = link_find(socket, name, &info);
	if (result < 0)
		return result;
	text[0] = '\0';
	struct listing listing = {.index = info.index, .text = text, .bytes = bytes};
	struct netlink_batch batch;
	netlink_begin(&batch);
	struct ifaddrmsg *header = netlink_message(&batch, RTM_GETADDR, NLM_F_DUMP, sizeof *header);
	header->ifa_family = AF_INET;
	return netlink_query(socket, &batch, list_address, &listing);
}

static int list_port(const struct nlmsghdr *message, void *context)
{
	struct listing *listing = context;
	if (message->nlmsg_type != RTM_NEWLINK)
		return 0;
	size_t bytes;
	int master = 0;
	const void *found = netlink_find(message, sizeof(struct ifinfomsg), IFLA_MASTER, &bytes);
	if (found != NULL && bytes >= sizeof master)
		memcpy(&master, found, sizeof master);
	const char *name = netlink_find(message, sizeof(struct ifinfomsg), IFLA_IFNAME, &bytes);
	return master == listing->index && name != NULL ? append(listing, name) : 0;
}

int bridge_ports(int socket, const char *name, char *text, size_t bytes)
{
	struct link_info info;
	text[0] = '\0';
	int result = link_find(socket, name, &info);
	if (result < 0 || info.index == 0)
		return result;
	struct listing listing = {.index = info.index, .text = text, .bytes = bytes};
	struct netlink_batch batch;
	netlink_begin(&batch);
	(void)netlink_message(&batch, RTM_GETLINK, NLM_F_DUMP, sizeof(struct ifinfomsg));
	netlink_u32(&batch, IFLA_MASTER, (uint32_t)info.index);
	return netlink_query(socket, &batch, list_port, &listing);
}
