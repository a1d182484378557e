#include "shim.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io.h"

/*
 * A published port is held by a socket for the container's life: packets are redirected by the firewall and do not
 * reach it, but another program that wants the port is told that it is in use. A port is `tcp 0.0.0.0 8080`.
 */
static struct watch *reserved;
static size_t reserved_count;

/* What the firewall did not redirect has nowhere to go: it is refused, not left hanging. */
static void connection_ready(struct watch *watch, uint32_t events)
{
	(void)events;
	int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd >= 0) {
		struct linger reset = { .l_onoff = 1 };
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
		close(fd);
	}
}

static socklen_t parse_address(const char *text, uint16_t port, struct sockaddr_storage *out)
{
	struct sockaddr_in *four = (struct sockaddr_in *)out;
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)out;
	memset(out, 0, sizeof *out);
	if (inet_pton(AF_INET, text[0] == '-' ? "0.0.0.0" : text, &four->sin_addr) == 1) {
		four->sin_family = AF_INET;
		four->sin_port = htons(port);
		return sizeof *four;
	}
	if (inet_pton(AF_INET6, text, &six->sin6_addr) == 1) {
		six->sin6_family = AF_INET6;
		six->sin6_port = htons(port);
		return sizeof *six;
	}
	return 0;
}

static int reserve(const char *text)
{
	char protocol[8], address[64];
	unsigned port;
	struct sockaddr_storage where;
	if (sscanf(text, "%7s %63s %u", protocol, address, &port) != 3 || port == 0 || port > 65535) {
		errno = EINVAL;
		return -1;
	}
	socklen_t length = parse_address(address, (uint16_t)port, &where);
	bool tcp = strcmp(protocol, "tcp") == 0;
	if (length == 0 || (!tcp && strcmp(protocol, "udp") != 0)) {
		errno = EINVAL;
		return -1;
	}
	int fd = socket(where.ss_family, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -1;
	int one = 1;
	if (where.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
	/* A connection of the previous holder in TIME_WAIT is no reason to refuse; a listener still is. */
	if (tcp)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	else
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &one, sizeof one);
	if (bind(fd, (struct sockaddr *)&where, length) < 0 || (tcp && listen(fd, 16) < 0)) {
		int failed = errno;
		close(fd);
		errno = failed;
		return -1;
	}
	return fd;
}

int ports_reserve(const struct text_list *ports, struct failure *failure)
{
	reserved = must_allocate(ports->count * sizeof *reserved);
	for (size_t i = 0; i < ports->count; i++) {
		int fd = reserve(ports->items[i]);
		if (fd < 0) {
			failure->number = errno;
			failure->stage = "port";
			snprintf(failure->text, sizeof failure->text, "%s", ports->items[i]);
			ports_release();
			return -1;
		}
		watch_init(&reserved[reserved_count++], fd, connection_ready);
		if (strncmp(ports->items[i], "tcp", 3) == 0)
			watch_for(&reserved[reserved_count - 1], EPOLLIN);
	}
	return 0;
}

void ports_release(void)
{
	while (reserved_count > 0)
		watch_close(&reserved[--reserved_count]);
}
