/* SPDX-License-Identifier: MIT */
/*
 * Network plumbing: ports, links between two ports, hubs.
 *
 * A port is one end of a link: a network card (NIC) or a backend (user, tap, socket, vde, hub
 * port). Two ports are joined and exchange Ethernet frames without the checksum (FCS). Neither knows
 * what the other is: a card sees net_send(), its ops' receive() and whether the link is up. Both
 * ends may have several queues; queue i of one talks to queue i of the other (modulo the number
 * of queues the receiver uses).
 *
 * Flow control: receive() returns false when the port cannot take a frame now. net_send() then
 * keeps the frame in the receiver's backlog (bounded; beyond it frames are lost, as on a wire),
 * and net_try_send() leaves it with the sender, whose resume() is called once there is room. The
 * receiver says net_receive_ready() when it has room again. Frames of a queue never overtake each
 * other.
 *
 * Reentrancy: receive() is never called from within a net_send() by the same port; frames that
 * come back meanwhile (the user network answers at once) are delivered from the loop a moment
 * later. resume() always comes from the loop.
 *
 * Threads: the machine lock is held in every call and every callback.
 *
 * virtio-net headers: a port that can (net_peer_offloads()) exchanges frames that begin with
 * struct virtio_net_hdr (virtio 1.2, 5.1.6) once the card asked for it by
 * net_set_vnet_hdr(). In both directions then; filters and `info network` see frames without.
 */
#ifndef NET_NET_H
#define NET_NET_H

#include "lib/error.h"
#include "lib/list.h"
#include "lib/strbuf.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct clock;
struct loop;
struct net;
struct net_port;

enum {
	NET_MAX_QUEUES = 8,
	NET_FRAME_MAX = 65536 + 64, /* with segmentation offload a "frame" may be 64 KiB */
	NET_FRAME_PLAIN = 1514,     /* header and payload of a standard frame */
	NET_MAC_LEN = 6,
	NET_IOV_MAX = 1024,
};

/* What a receiver takes over from the sender; bits as TUN_F_* mean it. */
enum net_offload {
	NET_OFFLOAD_CSUM = 1 << 0, /* frames with a partial checksum */
	NET_OFFLOAD_TSO4 = 1 << 1,
	NET_OFFLOAD_TSO6 = 1 << 2,
	NET_OFFLOAD_ECN = 1 << 3, /* TSO frames with ECN */
	NET_OFFLOAD_UFO = 1 << 4,
};

/* What a card receives (query-rx-filter). */
enum net_rx_state { NET_RX_NONE, NET_RX_NORMAL, NET_RX_ALL };
struct net_rx_filter {
	bool promiscuous, broadcast_allowed;
	enum net_rx_state unicast, multicast, vlan;
	bool unicast_overflow, multicast_overflow;
	const uint8_t *mac;                                       /* NET_MAC_LEN bytes */
	const uint8_t (*unicast_table)[6], (*multicast_table)[6]; /* valid during the call */
	unsigned unicasts, multicasts;
	const uint64_t *vlans; /* 4096 bits */
};

enum net_kind { NET_NIC, NET_BACKEND, NET_HUBPORT };

/* One end's side. NULL members: nothing happens (receive: the frame is lost). */
struct net_port_ops {
	/* A frame of `len` bytes in `iov`, valid during the call. False: no room now (nothing was
	 * taken); the port calls net_receive_ready() later. */
	bool (*receive)(void *opaque, unsigned queue, const struct iovec *iov, int count,
			size_t len);
	/* After net_try_send() returned false on this queue: the peer has room again. */
	void (*resume)(void *opaque, unsigned queue);
	/* The link went up or down (net_link_up() says which), also by joining and parting. */
	void (*link_changed)(void *opaque);

	/* Backends with offloads (tap). `hdr_len` 0, 10 or 12. */
	unsigned (*offloads)(void *opaque); /* enum net_offload that a sender may use; 0: no header
					     */
	int (*set_vnet_hdr)(void *opaque, unsigned hdr_len);
	void (*set_offload)(void *opaque, unsigned offloads); /* what the peer can receive */
	void (*set_queues)(void *opaque, unsigned queues);    /* the peer uses the first `queues` */

	/* Cards that have filters: fills all of it. */
	void (*rx_filter)(void *opaque, struct net_rx_filter *out);
	/* Cards: tells switches, and the guest that it shall tell others, where the card is. */
	void (*announce)(void *opaque);
	/* For `info network`: "type=user,net=..."; a line without newline. */
	void (*describe)(void *opaque, struct strbuf *out);
	/* Backends: called by net_port_free(). */
	void (*free)(void *opaque);
};

struct net_port_stats {
	uint64_t sent, sent_bytes; /* by this port, taken or queued */
	uint64_t lost;             /* frames for this port that found the backlog full */
};

/* All ports and hubs of a machine. */
struct net *net_new(struct loop *loop, struct clock *clock);
/* Frees backends and hubs; cards must be gone. */
void net_free(struct net *net);
struct loop *net_loop(const struct net *net);
struct clock *net_clock(const struct net *net);

/*
 * A port. `id` is copied and unique (-EEXIST) among the cards, or among backends and hub ports: a card
 * may be called as its backend is. `model` is "user", "tap", "ne2k_pci" (must stay
 * valid). Backends: freed with the net or by net_port_free(), which calls ops->free. NICs free
 * theirs.
 */
struct net_port *net_port_new(struct net *net, enum net_kind kind, const char *id,
			      const char *model, unsigned queues, const struct net_port_ops *ops,
			      void *opaque, struct error *err);
/* Parts it first. */
void net_port_free(struct net_port *port);
/* Sends a broadcast from which switches learn where this address is (announce.c). */
void net_send_announcement(struct net_port *port, const uint8_t mac[NET_MAC_LEN]);
/* The backend or hub port of this name, else the card. */
struct net_port *net_find(struct net *net, const char *id);
/* Only a card; only a backend or hub port. */
struct net_port *net_find_nic(struct net *net, const char *id);
struct net_port *net_find_backend(struct net *net, const char *id);
const char *net_port_id(const struct net_port *port);
const char *net_port_model(const struct net_port *port);
enum net_kind net_port_kind(const struct net_port *port);
unsigned net_port_queues(const struct net_port *port);
void *net_port_opaque(const struct net_port *port);
const struct net_port_ops *net_port_ops(const struct net_port *port);
const struct net_port_stats *net_port_stats(const struct net_port *port);
struct net_port *net_peer(const struct net_port *port);
/* Calls fn for each port in the order of creation; fn may free the port it is given. */
void net_for_each(struct net *net, void (*fn)(void *opaque, struct net_port *port), void *opaque);

/* Joins two ports that have no peer (-EBUSY with a sentence otherwise). */
int net_join(struct net_port *a, struct net_port *b, struct error *err);
void net_part(struct net_port *port);

/* Up when the port is joined and set_link took down neither end. */
bool net_link_up(const struct net_port *port);
/* The monitor's set_link: takes this end down or up; both ends learn of it. */
void net_set_link(struct net_port *port, bool up);
/* Whether set_link took this very end down. */
bool net_port_is_down(const struct net_port *port);

/* While the machine is stopped its cards receive nothing: frames wait, as for a card without room. */
void net_hold_cards(struct net *net, bool hold);

/* Takes at once, by receive(), what the peer answered during a net_send(), instead of a moment later from
 * the loop; for a card that sends on a vCPU's thread, when it is done with the frame. */
void net_take_waiting(struct net_port *port);

/*
 * Sends a frame to the peer. Lost when the link is down. The frame must not be empty nor longer
 * than NET_FRAME_MAX, or it is lost; `count` <= NET_IOV_MAX. Never keeps the buffers.
 */
void net_send(struct net_port *port, unsigned queue, const struct iovec *iov, int count);
void net_send_buf(struct net_port *port, unsigned queue, const void *buf, size_t len);
/* As net_send(), but false (nothing sent) when the peer has no room: resume() will be called. */
bool net_try_send(struct net_port *port, unsigned queue, const struct iovec *iov, int count);
/* The port can take frames again: the loop delivers the backlog, then lets the peer resume. */
void net_receive_ready(struct net_port *port, unsigned queue);
/* A NIC that was reset: frames that wait for it are dropped. */
void net_drop_backlog(struct net_port *port);

/* What the peer can do for this NIC: offloads it takes (0: none, then no header either). */
unsigned net_peer_offloads(const struct net_port *port);
/* Agrees on frames with a header of 0, 10 or 12 bytes; -ENOTSUP when the peer cannot. */
int net_set_vnet_hdr(struct net_port *port, unsigned hdr_len);
unsigned net_vnet_hdr(const struct net_port *port);
/* What this NIC's guest can receive (VIRTIO_NET_F_GUEST_*). */
void net_set_peer_offload(struct net_port *port, unsigned offloads);
/* The NIC uses the first `queues` of its queues, and so shall the peer. */
void net_use_queues(struct net_port *port, unsigned queues);
unsigned net_peer_queues(const struct net_port *port);

/*
 * Filters see each frame that passes a port, in either direction, without its vnet header. The
 * struct is the caller's; embed it.
 */
struct net_filter {
	void (*frame)(struct net_filter *filter, bool sent_by_port, const struct iovec *iov,
		      int count, size_t len);
	/* For `info network`: "type=filter-dump,..."; may be NULL. */
	void (*describe)(struct net_filter *filter, struct strbuf *out);
	const char *id;        /* of the object, valid as long as it; may be NULL */
	struct net_port *port; /* NULL once the port is gone */
	struct list link;
};
void net_filter_attach(struct net_filter *filter, struct net_port *port);
void net_filter_detach(struct net_filter *filter);

/* Prints the filters of a port, if it has any. */
void net_describe_filters(const struct net_port *port, struct strbuf *out);

/* Copies at most `len` bytes from offset `from` of the vector; returns how many. */
size_t net_iov_copy(void *buf, size_t len, const struct iovec *iov, int count, size_t from);
size_t net_iov_size(const struct iovec *iov, int count);

/* Hubs: what one port sends, all others receive. Made when first named. */
struct net_port *net_hubport_new(struct net *net, const char *id, unsigned hub, struct error *err);
/* The number of the hub that this is a port of, or -1. */
int net_hubport_id(const struct net_port *port);

/* What every card is made with. */
struct nic_config {
	struct net *net;
	const char *id;           /* the port's id ("ne2k_pci.0", or the user's) */
	uint8_t mac[NET_MAC_LEN]; /* permanent address */
	struct net_port *peer;    /* backend to join, or NULL: the cable is not plugged in */
};

#endif
