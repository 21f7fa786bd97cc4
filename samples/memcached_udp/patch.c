/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* memcached's UDP port as an amplifier (CVE-2018-1000115), closed from both sides: in the server and at the network
 * device. See README.md. */
#include "upatch.h"

/* What both sides share. Addresses are as in the packet. */
UPATCH_RULE(__u16, port) = 11211;
UPATCH_RULE(__u32, longest) = 1000;	/* bytes of a reply over UDP */
UPATCH_RULE(__u32, flood) = 200;	/* requests a second, from all sources */
UPATCH_RULE(__u32, lockdown);		/* set while there are more: no reply over UDP at all */
UPATCH_RULE(__u32, banned[64]);		/* sources whose requests are dropped; one that comes later takes a slot over */
#define SLOT(host) ((__u32)((host) * 2654435769u) >> 26)

UPATCH_COUNTER(__u64, hits);		/* replies over UDP */
UPATCH_COUNTER(__u64, swallowed);	/* replies that were not sent */
UPATCH_COUNTER(__u64, requests);	/* seen by the kernel program */
UPATCH_COUNTER(__u64, dropped);		/* of these */

__u64 __arena second;
__u32 __arena in_second;

/* ---- In the server: every reply over UDP leaves it by sendmsg(2), with the address of whoever asked. */

struct message { /* struct msghdr of x86-64 */
	const void *name;
	__u64 namelen;
	const struct { const void *base; __u64 len; } *data;
	__u64 pieces;
};
struct address { __u16 family, port; __u32 host; }; /* struct sockaddr_in */
#define AF_INET 2

SEC("upatch/libc.so.6:sendmsg")
int UPATCH(reply, int fd, const struct message *message)
{
	struct message m;
	struct address to;
	__u64 len = 0;

	if (bpf_probe_read_user(&m, sizeof(m), message) || !m.name)
		return UPATCH_CONTINUE; /* TCP */
	if (bpf_probe_read_user(&to, sizeof(to), m.name) || to.family != AF_INET)
		return UPATCH_CONTINUE;
	UPATCH_INC(hits);
	for (int i = 0; i < 16 && i < m.pieces; i++) {
		__u64 piece = 0;
		bpf_probe_read_user(&piece, sizeof(piece), &m.data[i].len);
		len += piece;
	}
	if (len > longest)
		banned[SLOT(to.host)] = to.host;
	else if (!lockdown)
		return UPATCH_CONTINUE;
	UPATCH_INC(swallowed);
	return upatch_return(ctx, len); /* as if the network had lost it */
}

/* ---- At the device: requests are counted, those of banned sources go no further. */

struct __sk_buff;
#define TC_ACT_SHOT 2
#define TC_ACT_NEXT -1 /* the next program decides */
#define bpf_skb_load_bytes(skb, offset, to, len) \
	__upatch_helper(26, long, const void *, __u32, void *, __u32)(skb, offset, to, len)

struct headers { /* of Ethernet, IPv4 without options, UDP */
	__u8 ethernet[12];
	__u16 type;
	__u8 version, service;
	__u16 total, id, fragment;
	__u8 ttl, protocol;
	__u16 check;
	__u32 from, to;
	__u16 from_port, to_port;
} __attribute__((packed));

SEC("tcx/ingress")
int request(struct __sk_buff *skb)
{
	struct headers h;
	if (bpf_skb_load_bytes(skb, 0, &h, sizeof(h)))
		return TC_ACT_NEXT;
	if (h.type != __builtin_bswap16(0x0800) || h.version != 0x45 || h.protocol != 17 ||
	    h.to_port != __builtin_bswap16(port))
		return TC_ACT_NEXT;
	UPATCH_INC(requests);
	__u64 now = bpf_ktime_get_ns();
	if (now - second > 1000000000) {
		lockdown = in_second > flood && now - second < 2000000000;
		second = now;
		in_second = 0;
	}
	in_second++;
	if (in_second > flood)
		lockdown = 1;
	if (banned[SLOT(h.from)] != h.from)
		return TC_ACT_NEXT;
	UPATCH_INC(dropped);
	return TC_ACT_SHOT;
}

char _license[] SEC("license") = "Dual MIT/GPL";
