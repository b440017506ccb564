#ifndef VMMD_VIRTIO_NET_H
#define VMMD_VIRTIO_NET_H
#include <stdint.h>

#include "vmmd/virtio/pace.h"
#include "vmmd/virtio/ring.h"

/* The data path of virtio-net (virtio 1.2, 5.1) over a tap that was opened with
 * IFF_VNET_HDR and a header of 12 bytes: that header is the driver's, so frames
 * go between tap and guest memory as they are. Only the loop calls this.
 *
 * Between two calls nothing is in flight: a frame is read when there is room for
 * the largest there can be, and chains that were not needed are given back; a
 * frame that the tap does not take stays in the ring. */

// cffi>
#define NET_HEADER 12
#define NET_MAX_FRAME 65562 /* with its header */
#define NET_SEGMENTS 512

enum net_stop {
    NET_EMPTY = 0,       /* tx: nothing to do, the next chain is kicked; or off */
    NET_BUDGET = 1,      /* call again; kicks are off */
    NET_THROTTLED = 2,   /* the limit is used up */
    NET_WOULD_BLOCK = 3, /* the tap is full (tx) or empty (rx) */
    NET_NO_BUFFERS = 4,  /* rx: too few buffers; the next ones are kicked */
    NET_DETOUR = 5,      /* tx: the next frame is for net_take_detoured */
    NET_TAP_ERROR = 6,   /* see tap_errno */
    NET_BROKEN = 7       /* the ring broke the rules: ring->fault */
};

/* What a limiter lets a direction take; ~0 is no limit. The frame that reaches
 * the limit is the last: `*_used` may exceed it. The caller clears `*_used`. */
struct net_limit {
    uint64_t ops_allowed;
    uint64_t bytes_allowed;
    uint64_t ops_used;
    uint64_t bytes_used;
};

/* Frames and bytes count with the header, as Firecracker's do. */
struct net_counters {
    uint64_t rx_frames;
    uint64_t rx_bytes;
    uint64_t rx_fails; /* frames that did not fit, buffers that cannot hold one */
    uint64_t rx_no_buffers;
    uint64_t rx_throttled;
    uint64_t tap_read_fails;
    uint64_t tx_frames;
    uint64_t tx_bytes;
    uint64_t tx_malformed;
    uint64_t tx_no_avail;
    uint64_t tx_throttled;
    uint64_t tx_remaining;
    uint64_t tx_spoofed;
    uint64_t tap_write_fails;
    uint64_t detoured;
    uint64_t spins;
    uint64_t spin_hits;
    struct pace_latency tap_write;
};

/* A popped chain of receive buffers: `segments` of the pool's, `len` bytes. */
struct net_buffer {
    uint16_t head;
    uint16_t segments;
    uint32_t len;
};

/* Receive buffers in the ring's order; [begin, end) of `iov` belongs to the
 * chains [first, last). One more iov stands behind, for what does not fit. */
struct net_pool {
    uint64_t room;
    uint32_t begin;
    uint32_t end;
    uint32_t first;
    uint32_t last;
    struct net_buffer buffer[512];
    struct iovec iov[513];
    uint64_t gpa[513];
};

struct net {
    struct ring *rx;
    struct ring *tx;
    struct irq_line *irq;
    int32_t tap_fd;
    int32_t tap_errno;
    uint8_t mergeable; /* MRG_RXBUF: a frame may span chains */
    uint8_t tap_lost;  /* the last write failed for want of a tap */
    uint8_t check_mac;
    uint8_t detour;
    uint8_t mac[6];
    uint8_t detour_ip[4];
    uint32_t rx_room; /* mergeable: room to have before a frame is read */
    uint32_t received; /* frames since the transmit ring was last looked at */

    uint64_t max_requests; /* a drain's budget */
    uint64_t max_bytes;
    uint64_t max_ns;
    struct net_limit rx_limit;
    struct net_limit tx_limit;

    uint64_t spin_ns; /* how long one spin looks; 0: never */
    struct pace_habit spin;
    struct net_counters counters;
    struct ring_chain chain;
    struct net_pool pool;
};

/* Sends what the driver offers until something stops it; one interrupt. */
enum net_stop net_drain_tx(struct net *net);

/* Receives what the tap holds, likewise. Never EMPTY while on, never DETOUR. */
enum net_stop net_drain_rx(struct net *net);

/* After NET_DETOUR: takes that frame without its header into `frame` and answers
 * its chain; the length, 0 if there is none (any more) of at most `size`. */
uint32_t net_take_detoured(struct net *net, uint8_t *frame, uint32_t size);

/* Gives the driver a frame that did not come from the tap. 0: not enough buffers
 * now, the next ones are kicked. 1: done, also if no buffer can ever hold it. */
int net_deliver(struct net *net, const uint8_t *frame, uint32_t len);

/* Off: forgets the rings. */
void net_reset(struct net *net);
// <cffi
#endif
