/* One network namespace with its end of a veth pair, ready for a container's first process. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "netns-pool.h"

/*
 * What Docker sets in a container's namespace: every port and ping for every user. IPv6 stays on `lo` only, since a
 * network without IPv6 addresses must not get link-local ones (CVE-2020-10749, CVE-2024-32473).
 */
static int write_sysctls(void)
{
	static const char *const settings[][2] = {
		{"net/ipv6/conf/all/disable_ipv6", "1"},
		{"net/ipv6/conf/default/disable_ipv6", "1"},
		{"net/ipv6/conf/lo/disable_ipv6", "0"},
		{"net/ipv4/ip_unprivileged_port_start", "0"},
		{"net/ipv4/ping_group_range", "0 2147483647"},
	};
	for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
		int result = sysctl_write(settings[i][0], settings[i][1]);
		if (result < 0)
			return result;
	}
	return 0;
}

/* lo is the first link of every namespace. */
#define LOOPBACK 1

static void put_up(struct netlink_batch *batch, int index)
{
	struct ifinfomsg *header = netlink_message(batch, RTM_NEWLINK, 0, sizeof *header);
	header->ifi_index = index;
	header->ifi_flags = IFF_UP;
	header->ifi_change = IFF_UP;
}

static void put_veth(struct netlink_batch *batch, const struct endpoint_request *request, int namespace)
{
	(void)netlink_message(batch, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof(struct ifinfomsg));
	netlink_text(batch, IFLA_IFNAME, request->host_name);
	netlink_u32(batch, IFLA_MASTER, (uint32_t)request->bridge_index);
	size_t info = netlink_nest(batch, IFLA_LINKINFO);
	netlink_text(batch, IFLA_INFO_KIND, "veth");
	size_t data = netlink_nest(batch, IFLA_INFO_DATA);
	size_t peer = netlink_nest(batch, VETH_INFO_PEER);
	(void)netlink_raw(batch, sizeof(struct ifinfomsg));
	netlink_text(batch, IFLA_IFNAME, "eth0");
	netlink_attribute(batch, IFLA_ADDRESS, request->mac, MAC_BYTES);
	netlink_u32(batch, IFLA_NET_NS_FD, (uint32_t)namespace);
	netlink_end(batch, peer);
	netlink_end(batch, data);
	netlink_end(batch, info);
}

/* The host's end: no IPv6 address of its own, then up, with hairpin (bridge-nf-call-iptables=1 needs it). */
static void put_host_end(struct netlink_batch *batch, const struct endpoint_request *request)
{
	(void)netlink_message(batch, RTM_NEWLINK, 0, sizeof(struct ifinfomsg));
	batch->may_fail |= 1u << (batch->count - 1); /* a kernel without IPv6 */
	netlink_text(batch, IFLA_IFNAME, request->host_name);
	size_t families = netlink_nest(batch, IFLA_AF_SPEC);
	size_t inet6 = netlink_nest(batch, AF_INET6);
	netlink_u8(batch, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
	netlink_end(batch, inet6);
	netlink_end(batch, families);

	struct ifinfomsg *header = netlink_message(batch, RTM_NEWLINK, 0, sizeof *header);
	header->ifi_flags = IFF_UP;
	header->ifi_change = IFF_UP;
	netlink_text(batch, IFLA_IFNAME, request->host_name);
	size_t info = netlink_nest(batch, IFLA_LINKINFO);
	netlink_text(batch, IFLA_INFO_KIND, "bridge_slave");
	size_t data = netlink_nest(batch, IFLA_INFO_SLAVE_DATA);
	netlink_u8(batch, IFLA_BRPORT_MODE, 1);
	netlink_end(batch, data);
	netlink_end(batch, info);
}

static int connect_host(int socket, int namespace, const struct endpoint_request *request)
{
	struct netlink_batch batch;
	netlink_begin(&batch);
	/* Another MAC may have had this address: the host must not send to it until its entry grows old. */
	struct ndmsg *neighbour = netlink_message(&batch, RTM_DELNEIGH, 0, sizeof *neighbour);
	batch.may_fail |= 1u;
	neighbour->ndm_family = AF_INET;
	neighbour->ndm_ifindex = request->bridge_index;
	netlink_u32(&batch, NDA_DST, request->address);
	put_veth(&batch, request, namespace);
	put_host_end(&batch, request);
	return netlink_run(socket, &batch);
}

static int configure_inside(int socket, const struct endpoint_request *request)
{
	struct netlink_batch batch;
	netlink_begin(&batch);
	put_up(&batch, LOOPBACK);
	if (request == NULL)
		return netlink_run(socket, &batch);
	struct link_info link;
	int result = link_find(socket, "eth0", &link);
	if (result < 0)
		return result;
	netlink_begin(&batch);
	put_up(&batch, LOOPBACK);
	put_up(&batch, link.index);
	struct ifaddrmsg *address = netlink_message(&batch, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, sizeof *address);
	address->ifa_family = AF_INET;
	address->ifa_prefixlen = (uint8_t)request->prefix;
	address->ifa_index = (uint32_t)link.index;
	netlink_u32(&batch, IFA_LOCAL, request->address);
	netlink_u32(&batch, IFA_ADDRESS, request->address);
	if (request->prefix < 31)
		netlink_u32(&batch, IFA_BROADCAST, request->address | htonl(0xffffffffu >> request->prefix));
	struct rtmsg *route = netlink_message(&batch, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, sizeof *route);
	route->rtm_family = AF_INET;
	route->rtm_table = RT_TABLE_MAIN;
	route->rtm_protocol = RTPROT_BOOT;
	route->rtm_scope = RT_SCOPE_UNIVERSE;
	route->rtm_type = RTN_UNICAST;
	netlink_u32(&batch, RTA_GATEWAY, request->gateway);
	netlink_u32(&batch, RTA_OIF, (uint32_t)link.index);
	return netlink_run(socket, &batch);
}

/*
 * A descriptor number that was used lately is not used again: a path `/proc/<pid>/fd/<n>` that a slow runtime still
 * holds must never name another container's namespace.
 */
static int move_to_fresh_number(int fd)
{
	static int next = 16;
	struct rlimit files;
	int most = getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < 1 << 20 ? (int)files.rlim_cur : 1 << 20;
	int moved = fcntl(fd, F_DUPFD_CLOEXEC, next);
	if (moved < 0 && (errno == EINVAL || errno == EMFILE))
		moved = fcntl(fd, F_DUPFD_CLOEXEC, 16);
	int result = moved < 0 ? -errno : moved;
	close(fd);
	if (moved >= 0)
		next = moved + 1 < most ? moved + 1 : 16;
	return result;
}

/* Enters a new namespace just long enough to open it, a socket in it, and to write its sysctls. */
static int open_namespace(int host_namespace, int *inside)
{
	if (unshare(CLONE_NEWNET) < 0)
		return -errno;
	int result = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (result < 0) {
		result = -errno;
	} else {
		int failed = write_sysctls();
		*inside = failed < 0 ? failed : netlink_open(NETLINK_ROUTE, 0);
		if (*inside < 0) {
			close(result);
			result = *inside;
		}
	}
	/* In the wrong namespace every later request would go wrong: better to end, the daemon starts another helper. */
	if (setns(host_namespace, CLONE_NEWNET) < 0)
		__builtin_trap();
	return result;
}

/*
 * A carrier's change is worked off by a kernel thread, and until then packets are dropped: a container that starts at
 * once would lose its first one, or the host its first ARP request, and wait a second for the next. Bounded: a link
 * that takes longer comes up by itself.
 */
static void await_carrier(int socket, int inside, const char *host_name)
{
	const struct timespec pause = {.tv_nsec = 100000};
	for (int attempt = 0; attempt < 200; attempt++) {
		struct link_info ours, theirs;
		if (link_find(socket, host_name, &ours) < 0 || link_find(inside, "eth0", &theirs) < 0 || ours.index == 0 ||
		    (ours.forwarding && theirs.running))
			return;
		(void)nanosleep(&pause, NULL);
	}
}

int namespace_make(int socket, int host_namespace, const struct endpoint_request *request)
{
	int inside = -1;
	int namespace = open_namespace(host_namespace, &inside);
	if (namespace < 0)
		return namespace;
	int result = request == NULL ? 0 : connect_host(socket, namespace, request);
	if (result == 0)
		result = configure_inside(inside, request);
	if (result == 0 && request != NULL)
		await_carrier(socket, inside, request->host_name);
	close(inside);
	if (result < 0) {
		close(namespace);
		return result;
	}
	return move_to_fresh_number(namespace);
}
