/* Connection tracking: flows that would keep packets from the next owner of an address or a port. */
#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "netns-pool.h"

/*
 * Which parts of the given tuple an entry must match: bits of the kernel's nf_internals.h (CTA_FILTER_FLAG), attributes
 * of CTA_FILTER. Kernels before 5.8 do not know them and answer EOPNOTSUPP or EINVAL.
 */
#define MATCH_SOURCE_ADDRESS (1u << 0)
#define MATCH_PROTOCOL (1u << 3)
#define MATCH_DESTINATION_PORT (1u << 5)
#define FILTER_ORIGINAL 1
#define FILTER_REPLY 2

static void begin(struct netlink_batch *batch)
{
	netlink_begin(batch);
	struct nfgenmsg *header =
		netlink_message(batch, (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_DELETE, 0, sizeof *header);
	header->nfgen_family = AF_INET;
	header->version = NFNETLINK_V0;
}

static int finish(int socket, struct netlink_batch *batch, uint16_t direction, uint32_t parts)
{
	size_t filter = netlink_nest(batch, NLA_F_NESTED | CTA_FILTER);
	netlink_u32(batch, direction, parts);
	netlink_end(batch, filter);
	return netlink_run(socket, batch);
}

int flows_forget_address(int socket, uint32_t address)
{
	struct netlink_batch batch;
	begin(&batch);
	size_t tuple = netlink_nest(&batch, NLA_F_NESTED | CTA_TUPLE_REPLY);
	size_t ip = netlink_nest(&batch, NLA_F_NESTED | CTA_TUPLE_IP);
	netlink_u32(&batch, CTA_IP_V4_SRC, address);
	netlink_end(&batch, ip);
	netlink_end(&batch, tuple);
	return finish(socket, &batch, FILTER_REPLY, MATCH_SOURCE_ADDRESS);
}

int flows_forget_udp_port(int socket, uint16_t port)
{
	struct netlink_batch batch;
	uint16_t network_order = htons(port);
	begin(&batch);
	size_t tuple = netlink_nest(&batch, NLA_F_NESTED | CTA_TUPLE_ORIG);
	size_t protocol = netlink_nest(&batch, NLA_F_NESTED | CTA_TUPLE_PROTO);
	netlink_u8(&batch, CTA_PROTO_NUM, IPPROTO_UDP);
	netlink_attribute(&batch, CTA_PROTO_DST_PORT, &network_order, sizeof network_order);
	netlink_end(&batch, protocol);
	netlink_end(&batch, tuple);
	return finish(socket, &batch, FILTER_ORIGINAL, MATCH_PROTOCOL | MATCH_DESTINATION_PORT);
}
