/*
 * The namespace helper's loop: one request a line on stdin, one answer a line on stdout, in order. It ends with its
 * stdin; namespaces handed out but not yet adopted are kept a little longer, so that a container being started when
 * the daemon died still gets its network.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "netns-pool.h"
#include "roles.h"

#define LINGER_SECONDS 5
#define WORDS_MAX 10
/* 1,023 ports with names of 15 characters */
#define LISTING_BYTES 32768

static int host_namespace;
static int route_socket;
static int filter_socket;
static int watch_socket = -1;
static char watched_table[64];
static char listing[LISTING_BYTES];

/* Handed-out descriptors, so that the end of the daemon drops the others at once. */
static uint8_t handed_out[(1 << 20) / 8];

static void say(const char *line, size_t bytes)
{
	while (bytes > 0) {
		ssize_t wrote = write(STDOUT_FILENO, line, bytes);
		if (wrote < 0 && errno == EINTR)
			continue;
		if (wrote < 0)
			return; /* the daemon is gone; stdin says so too */
		line += wrote;
		bytes -= (size_t)wrote;
	}
}

static void answer(const char *sequence, int result)
{
	static char line[LISTING_BYTES + 64];
	int bytes = result < 0 ? snprintf(line, sizeof line, "%s error %d\n", sequence, -result)
			       : snprintf(line, sizeof line, "%s ok %d%s\n", sequence, result, listing);
	say(line, (size_t)bytes);
}

static bool parse_mac(const char *text, uint8_t mac[MAC_BYTES])
{
	unsigned part[MAC_BYTES];
	char end;
	if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%c", &part[0], &part[1], &part[2], &part[3], &part[4], &part[5], &end) !=
	    MAC_BYTES)
		return false;
	for (size_t i = 0; i < MAC_BYTES; i++)
		mac[i] = (uint8_t)part[i];
	return true;
}

static bool parse_address(const char *text, uint32_t *address)
{
	return inet_pton(AF_INET, text, address) == 1;
}

static bool valid_name(const char *name)
{
	size_t bytes = strlen(name);
	return bytes > 0 && bytes < IFNAMSIZ && strchr(name, '/') == NULL && name[0] != '.';
}

/* make <bridge index> <host interface> <address> <prefix> <gateway> <mac> */
static int run_make(char **words)
{
	struct endpoint_request request = {.bridge_index = atoi(words[0]), .prefix = (unsigned)atoi(words[3])};
	if (!valid_name(words[1]) || !parse_address(words[2], &request.address) || request.prefix > 31 ||
	    !parse_address(words[4], &request.gateway) || !parse_mac(words[5], request.mac))
		return -EINVAL;
	memcpy(request.host_name, words[1], strlen(words[1]) + 1);
	return namespace_make(route_socket, host_namespace, &request);
}

/* A descriptor below 16 is this program's own. */
static bool pooled(int fd)
{
	return fd >= 16 && fd < 1 << 20;
}

static int run_take(char **words)
{
	int fd = atoi(words[0]);
	if (!pooled(fd))
		return -EBADF;
	handed_out[fd / 8] = (uint8_t)(handed_out[fd / 8] | 1u << (fd % 8));
	return 0;
}

static int run_drop(char **words)
{
	int fd = atoi(words[0]);
	if (!pooled(fd))
		return -EBADF;
	handed_out[fd / 8] = (uint8_t)(handed_out[fd / 8] & ~(1u << (fd % 8)));
	return close(fd) < 0 ? -errno : 0;
}

static int run_bridge(char **words)
{
	uint8_t mac[MAC_BYTES];
	if (!valid_name(words[0]) || !parse_mac(words[1], mac))
		return -EINVAL;
	bool own = false;
	int result = bridge_ensure(route_socket, words[0], mac, &own);
	(void)snprintf(listing, sizeof listing, " %s", own ? "own" : "foreign");
	return result;
}

/* address <link> add|del <address> <prefix> */
static int run_address(char **words)
{
	uint32_t address;
	unsigned prefix = (unsigned)atoi(words[3]);
	if (!valid_name(words[0]) || !parse_address(words[2], &address) || prefix > 31)
		return -EINVAL;
	return bridge_address(route_socket, words[0], strcmp(words[1], "add") == 0, address, prefix);
}

static int run_addresses(char **words)
{
	return valid_name(words[0]) ? link_addresses(route_socket, words[0], listing, sizeof listing) : -EINVAL;
}

static int run_ports(char **words)
{
	return valid_name(words[0]) ? bridge_ports(route_socket, words[0], listing, sizeof listing) : -EINVAL;
}

static int run_delete(char **words)
{
	return valid_name(words[0]) ? link_delete(route_socket, words[0]) : -EINVAL;
}

static int run_none(char **words)
{
	(void)words;
	return namespace_make(route_socket, host_namespace, NULL);
}

static int run_forget(char **words)
{
	uint32_t address;
	return parse_address(words[0], &address) ? flows_forget_address(filter_socket, address) : -EINVAL;
}

static int run_forget_port(char **words)
{
	int port = atoi(words[0]);
	return port > 0 && port < 65536 ? flows_forget_udp_port(filter_socket, (uint16_t)port) : -EINVAL;
}

/* From here on `event firewall-lost` and `event firewall-changed` are said. */
static int run_watch(char **words)
{
	if (snprintf(watched_table, sizeof watched_table, "%s", words[0]) >= (int)sizeof watched_table)
		return -ENAMETOOLONG;
	if (watch_socket < 0)
		watch_socket = netlink_open(NETLINK_NETFILTER, 1u << (NFNLGRP_NFTABLES - 1));
	return watch_socket < 0 ? watch_socket : 0;
}

static const struct {
	const char *verb;
	int words;
	int (*run)(char **words);
} commands[] = {
	{"make", 6, run_make},	     {"none", 0, run_none},   {"take", 1, run_take},	   {"drop", 1, run_drop},
	{"bridge", 2, run_bridge},   {"address", 4, run_address}, {"addresses", 1, run_addresses},
	{"ports", 1, run_ports},     {"delete", 1, run_delete},	  {"forget", 1, run_forget}, {"forget-udp-port", 1, run_forget_port},
	{"watch", 1, run_watch},
};

static void run_line(char *line)
{
	char *words[WORDS_MAX + 1];
	int count = 0;
	char *rest = line;
	for (char *word = strtok_r(line, " ", &rest); word != NULL && count < WORDS_MAX; word = strtok_r(NULL, " ", &rest))
		words[count++] = word;
	if (count < 2)
		return;
	listing[0] = '\0';
	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
		if (strcmp(commands[i].verb, words[1]) != 0 || commands[i].words != count - 2)
			continue;
		answer(words[0], commands[i].run(words + 2));
		return;
	}
	answer(words[0], -ENOSYS);
}

static void read_firewall_events(void)
{
	_Alignas(NLMSG_ALIGNTO) static char buffer[65536];
	bool lost = false, changed = false;
	for (;;) {
		ssize_t got = recv(watch_socket, buffer, sizeof buffer, MSG_DONTWAIT);
		if (got < 0 && errno == ENOBUFS) {
			lost = true; /* events were dropped: the daemon looks for itself */
			continue;
		}
		if (got < 0)
			break;
		int left = (int)got;
		for (struct nlmsghdr *message = (void *)buffer; NLMSG_OK(message, (unsigned)left);
		     message = NLMSG_NEXT(message, left)) {
			if (message->nlmsg_type >> 8 != NFNL_SUBSYS_NFTABLES)
				continue;
			uint8_t type = (uint8_t)(message->nlmsg_type & 0xff);
			size_t bytes;
			/* the table's name is attribute 1 of tables and chains alike */
			const char *table = netlink_find(message, sizeof(struct nfgenmsg), NFTA_TABLE_NAME, &bytes);
			bool own = table != NULL && strncmp(table, watched_table, bytes) == 0;
			if (own && (type == NFT_MSG_DELTABLE || type == NFT_MSG_DELCHAIN || type == NFT_MSG_DELRULE))
				lost = true;
			else if (!own && (type == NFT_MSG_NEWCHAIN || type == NFT_MSG_DELCHAIN || type == NFT_MSG_DELRULE))
				changed = true;
		}
	}
	if (lost)
		say("event firewall-lost\n", 20);
	if (changed)
		say("event firewall-changed\n", 23);
}

/* Namespaces nobody asked for go at once; the others stay until their container has surely opened them. */
static void linger(void)
{
	struct rlimit files;
	int most = getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < 1 << 20 ? (int)files.rlim_cur : 1 << 20;
	bool waiting = false;
	for (int fd = 16; fd < most; fd++) {
		if (handed_out[fd / 8] & 1u << (fd % 8))
			waiting = true;
		else
			close(fd);
	}
	if (waiting)
		(void)sleep(LINGER_SECONDS);
}

static void serve(void)
{
	static char buffer[65536];
	size_t used = 0;
	for (;;) {
		struct pollfd waits[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = watch_socket, .events = POLLIN}};
		if (poll(waits, 2, -1) < 0)
			continue;
		if (waits[1].revents != 0)
			read_firewall_events();
		if (waits[0].revents == 0)
			continue;
		ssize_t got = read(STDIN_FILENO, buffer + used, sizeof buffer - used);
		if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN))
			return;
		if (got < 0)
			continue;
		used += (size_t)got;
		char *line = buffer;
		for (char *end; (end = memchr(line, '\n', used - (size_t)(line - buffer))) != NULL; line = end + 1) {
			*end = '\0';
			run_line(line);
		}
		used -= (size_t)(line - buffer);
		memmove(buffer, line, used);
		if (used == sizeof buffer)
			return;
	}
}

int netns_pool_main(int argc, char **argv)
{
	(void)argv;
	if (argc != 1)
		return 2;
	(void)signal(SIGPIPE, SIG_IGN);
	/* A terminal's interrupt is for the daemon, which ends this helper by closing its stdin. */
	(void)signal(SIGINT, SIG_IGN);
	(void)signal(SIGHUP, SIG_IGN);
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	host_namespace = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	route_socket = netlink_open(NETLINK_ROUTE, 0);
	filter_socket = netlink_open(NETLINK_NETFILTER, 0);
	if (host_namespace < 0 || route_socket < 0 || filter_socket < 0) {
		fprintf(stderr, "netns-pool: cannot open the network namespace: %s\n", strerror(errno));
		return 1;
	}
	say("ready 1\n", 8);
	serve();
	linger();
	return 0;
}
