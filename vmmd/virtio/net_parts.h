#ifndef VMMD_VIRTIO_NET_PARTS_H
#define VMMD_VIRTIO_NET_PARTS_H
#include "vmmd/virtio/net.h"
#include "vmmd/virtio/pace.h"

/* What both directions share: a drain's budget and the end of a batch. */

/* The header and an Ethernet header: no frame is shorter. */
#define NET_MIN_FRAME (NET_HEADER + 14)

struct net_batch {
    uint64_t now_ns;
    uint64_t end_ns;
    uint64_t requests;
    uint64_t bytes;
};

static inline struct net_batch net_batch_begin(const struct net *net)
{
    uint64_t now = pace_clock_ns();
    return (struct net_batch){.now_ns = now, .end_ns = now + net->max_ns};
}

static inline int net_batch_spent(const struct net *net, const struct net_batch *batch)
{
    return batch->requests >= net->max_requests || batch->bytes >= net->max_bytes ||
           batch->now_ns >= batch->end_ns;
}

static inline int net_limit_reached(const struct net_limit *limit)
{
    return limit->ops_used >= limit->ops_allowed ||
           limit->bytes_used >= limit->bytes_allowed;
}

/* Where nothing else looks at the clock this does, now and then. */
static inline void net_batch_take(struct net_batch *batch, struct net_limit *limit,
                                  uint64_t bytes)
{
    batch->bytes += bytes;
    limit->ops_used++;
    limit->bytes_used += bytes;
    if (++batch->requests % 16 == 0)
        batch->now_ns = pace_clock_ns();
}

/* Where the `at`-th byte of a scattered range is, and in *len at most as many as
 * lie there in one piece; NULL behind the end. */
static inline uint8_t *net_at(const struct iovec *iov, uint32_t count, uint64_t at,
                              uint64_t *len)
{
    for (uint32_t i = 0; i < count; i++) {
        if (at < iov[i].iov_len) {
            if (iov[i].iov_len - at < *len)
                *len = iov[i].iov_len - at;
            return (uint8_t *)iov[i].iov_base + at;
        }
        at -= iov[i].iov_len;
    }
    return NULL;
}

static inline void net_signal(struct net *net, struct ring *ring)
{
    if (ring_should_signal(ring))
        irq_raise(net->irq, 1);
}
#endif
