#ifndef SKIFF_NETNS_POOL_H
#define SKIFF_NETNS_POOL_H

/*
 * The namespace helper: makes network namespaces, veth pairs and the daemon's bridge by raw netlink, and holds
 * namespaces as descriptors. Its line protocol and its life are written down in docs/internals/network.md.
 * Functions return 0 or more for success and a negative errno for failure.
 */
#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <net/if.h>

#define MAC_BYTES 6

/* Several requests in one datagram: the kernel works them off in order and acknowledges each. */
struct netlink_batch {
	_Alignas(NLMSG_ALIGNTO) char buffer[4096];
	size_t length;
	size_t message; /* offset of the message being built */
	unsigned count;
	uint32_t first_sequence;
	uint32_t may_fail; /* bit n: an error of message n is no error of the batch */
};

int netlink_open(int protocol, uint32_t groups);
void netlink_begin(struct netlink_batch *batch);
void *netlink_message(struct netlink_batch *batch, uint16_t type, uint16_t flags, size_t header_bytes);
void netlink_attribute(struct netlink_batch *batch, uint16_t type, const void *data, size_t bytes);
void netlink_text(struct netlink_batch *batch, uint16_t type, const char *text);
void netlink_u8(struct netlink_batch *batch, uint16_t type, uint8_t value);
void netlink_u32(struct netlink_batch *batch, uint16_t type, uint32_t value);
size_t netlink_nest(struct netlink_batch *batch, uint16_t type);
/* A nested header that some link kinds carry before their attributes. */
void *netlink_raw(struct netlink_batch *batch, size_t bytes);
void netlink_end(struct netlink_batch *batch, size_t nest);
int netlink_run(int socket, struct netlink_batch *batch);
typedef int (*netlink_visitor)(const struct nlmsghdr *message, void *context);
/* Runs a batch of one request and shows each answer to `visit` until one returns a negative errno. */
int netlink_query(int socket, struct netlink_batch *batch, netlink_visitor visit, void *context);
const void *netlink_find(const struct nlmsghdr *message, size_t header_bytes, uint16_t type, size_t *bytes);

/* /proc/sys/<path> = value, in the caller's network namespace. A file that the kernel lacks is no error. */
int sysctl_write(const char *path, const char *value);

struct link_info {
	int index; /* 0: there is none */
	uint8_t mac[MAC_BYTES];
	char kind[16];
	bool running;
	bool forwarding; /* as a bridge's port */
};

int link_find(int socket, const char *name, struct link_info *info);
int link_delete(int socket, const char *name);

/* Makes the bridge or takes an existing one over; the index is returned. One with another MAC is not this daemon's own. */
int bridge_ensure(int socket, const char *name, const uint8_t mac[MAC_BYTES], bool *own);
int bridge_address(int socket, const char *name, bool add, uint32_t address, unsigned prefix);
/* IPv4 addresses of a link, as text `a.b.c.d/p …` */
int link_addresses(int socket, const char *name, char *text, size_t bytes);
/* Names of a bridge's ports, as text. */
int bridge_ports(int socket, const char *name, char *text, size_t bytes);

struct endpoint_request {
	char host_name[IFNAMSIZ];
	int bridge_index;
	uint32_t address; /* network byte order, as the two below */
	uint32_t gateway;
	unsigned prefix;
	uint8_t mac[MAC_BYTES];
};

/* The new namespace's descriptor. Without a request it holds only `lo`. */
int namespace_make(int socket, int host_namespace, const struct endpoint_request *request);

/* Removes conntrack entries whose replies come from this address (network byte order). */
int flows_forget_address(int socket, uint32_t address);
/* Removes those of UDP packets that were sent to this port. */
int flows_forget_udp_port(int socket, uint16_t port);

#endif
