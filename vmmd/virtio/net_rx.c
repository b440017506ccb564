#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "vmmd/virtio/net_parts.h"

#define NUM_BUFFERS 10

/* Whether there is room to read a frame of up to `need` bytes. When everything
 * that the ring or the pool can hold is here, it has to do. */
static int enough(const struct net *net, uint64_t need)
{
    const struct net_pool *pool = &net->pool;
    uint32_t chains = pool->last - pool->first;

    if (!net->mergeable)
        return chains > 0;
    return pool->room >= need || chains >= net->rx->size ||
           pool->end - pool->begin > NET_SEGMENTS - RING_MAX_SIZE;
}

static void compact(struct net_pool *pool)
{
    uint32_t segments = pool->end - pool->begin, chains = pool->last - pool->first;

    memmove(pool->iov, pool->iov + pool->begin, segments * sizeof *pool->iov);
    memmove(pool->gpa, pool->gpa + pool->begin, segments * sizeof *pool->gpa);
    memmove(pool->buffer, pool->buffer + pool->first, chains * sizeof *pool->buffer);
    pool->begin = pool->first = 0;
    pool->end = segments;
    pool->last = chains;
}

/* Puts the popped chain behind the others; not `enough` before, so it fits.
 * A chain without room takes no segment, but a place. */
static void keep(struct net_pool *pool, const struct ring_chain *chain)
{
    if (pool->end + RING_MAX_SIZE > NET_SEGMENTS || pool->last == NET_SEGMENTS)
        compact(pool);
    memcpy(pool->iov + pool->end, chain->segment + chain->readable,
           chain->writable * sizeof *pool->iov);
    memcpy(pool->gpa + pool->end, chain->gpa + chain->readable,
           chain->writable * sizeof *pool->gpa);
    pool->end += chain->writable;
    pool->room += chain->writable_len;
    pool->buffer[pool->last++] = (struct net_buffer){
        chain->head, chain->writable, (uint32_t)chain->writable_len};
}

/* Pops one more chain into the pool. One that has to hold a frame by itself, but
 * not even the headers fit, is answered as it is: the pool is empty then, so what
 * it gives back is still the end of what was popped. EMPTY: kicks are on. */
static enum ring_result take_chain(struct net *net, struct net_batch *batch)
{
    enum ring_result popped = ring_pop(net->rx, &net->chain);

    /* Armed while the pool is held: the kick that is missing is for the chain
     * after those. */
    if (popped == RING_EMPTY && ring_arm_kicks(net->rx)) {
        ring_suppress_kicks(net->rx);
        popped = ring_pop(net->rx, &net->chain);
    }
    if (popped != RING_CHAIN)
        return popped;
    if (net->mergeable || net->chain.writable_len >= NET_MIN_FRAME) {
        keep(&net->pool, &net->chain);
        return RING_CHAIN;
    }
    batch->requests++;
    net->counters.rx_fails++;
    ring_push(net->rx, net->chain.head, 0);
    return RING_CHAIN;
}

/* What was popped and not used goes back, as if it had never been popped. */
static void give_back(struct net *net)
{
    struct net_pool *pool = &net->pool;

    while (pool->last != pool->first)
        ring_undo_pop(net->rx, pool->buffer[--pool->last].head);
    pool->begin = pool->end = pool->first = pool->last = 0;
    pool->room = 0;
}

static void mark(const struct net *net, uint64_t len)
{
    const struct net_pool *pool = &net->pool;

    for (uint32_t i = pool->begin; len && i < pool->end; i++) {
        uint64_t part = pool->iov[i].iov_len < len ? pool->iov[i].iov_len : len;
        gm_mark(net->rx->mem, pool->gpa[i], part);
        len -= part;
    }
}

static void scatter(const struct net_pool *pool, uint64_t at, const uint8_t *from,
                    uint64_t len)
{
    const struct iovec *iov = pool->iov + pool->begin;
    uint8_t *to;

    for (uint64_t part; len; at += part, from += part, len -= part) {
        part = len;
        if (!(to = net_at(iov, pool->end - pool->begin, at, &part)))
            return;
        memcpy(to, from, part);
    }
}

/* Hands the driver the frame of `len` bytes that lies in the pool. Its chains
 * come to be used all at once: drivers take a missing part for an error. */
static void publish(struct net *net, uint64_t len)
{
    struct net_pool *pool = &net->pool;
    uint16_t chains = 0;
    uint64_t left = len;

    mark(net, len);
    for (uint32_t i = pool->first; left; i++, chains++)
        left -= pool->buffer[i].len < left ? pool->buffer[i].len : left;
    scatter(pool, NUM_BUFFERS, (const uint8_t *)&chains, sizeof chains);
    for (left = len; left; pool->first++) {
        const struct net_buffer *b = &pool->buffer[pool->first];
        uint32_t part = b->len < left ? b->len : (uint32_t)left;
        ring_fill(net->rx, b->head, part);
        pool->room -= b->len;
        pool->begin += b->segments;
        left -= part;
    }
    ring_publish(net->rx);
    net->counters.rx_frames++;
    net->counters.rx_bytes += len;
    net->received++;
}

static enum net_stop read_failed(struct net *net, int error)
{
    if (error == EAGAIN)
        return NET_WOULD_BLOCK;
    net->counters.tap_read_fails++;
    if (error == EINVAL || error == EFAULT)
        return NET_EMPTY;
    net->tap_errno = error;
    return NET_TAP_ERROR;
}

/* The kernel cuts off what does not fit and says nothing: a byte behind the
 * buffers tells. One buffer that is larger than need be is read without, for a
 * twentieth of the cost; *most is how long a frame can be that is whole. */
static ssize_t read_frame(struct net *net, uint64_t *most)
{
    struct net_pool *pool = &net->pool;
    uint32_t count = pool->end - pool->begin;
    uint8_t behind;

    if (count == 1 && pool->room > net->rx_room) {
        *most = pool->room - 1;
        return read(net->tap_fd, pool->iov[pool->begin].iov_base, pool->room);
    }
    *most = pool->room;
    pool->iov[pool->end] = (struct iovec){&behind, sizeof behind};
    return readv(net->tap_fd, pool->iov + pool->begin, (int)count + 1);
}

/* Receives one frame. EMPTY: go on. One that does not fit is lost, the buffers
 * are not, and there will be room for the largest from now on. */
static enum net_stop receive(struct net *net, struct net_batch *batch)
{
    uint64_t most;
    ssize_t len = read_frame(net, &most);

    if (len <= 0) {
        batch->requests++;
        return read_failed(net, len ? errno : EIO);
    }
    net_batch_take(batch, &net->rx_limit, (uint64_t)len);
    if (len >= NET_MIN_FRAME && (uint64_t)len <= most) {
        publish(net, (uint64_t)len);
        return NET_EMPTY;
    }
    net->counters.rx_fails++;
    mark(net, (uint64_t)len);
    if ((uint64_t)len > most)
        net->rx_room = NET_MAX_FRAME;
    return NET_EMPTY;
}

static enum net_stop receive_all(struct net *net, struct net_batch *batch)
{
    enum net_stop stop = NET_EMPTY;

    while (stop == NET_EMPTY) {
        if (net_batch_spent(net, batch))
            return NET_BUDGET;
        if (net_limit_reached(&net->rx_limit))
            return NET_THROTTLED;
        if (enough(net, net->rx_room)) {
            stop = receive(net, batch);
            continue;
        }
        enum ring_result popped = take_chain(net, batch);
        if (popped != RING_CHAIN)
            return popped == RING_BROKEN ? NET_BROKEN : NET_NO_BUFFERS;
    }
    return stop;
}

enum net_stop net_drain_rx(struct net *net)
{
    if (!net->rx)
        return NET_EMPTY;
    struct net_batch batch = net_batch_begin(net);
    ring_suppress_kicks(net->rx);
    enum net_stop stop = receive_all(net, &batch);
    give_back(net);
    net_signal(net, net->rx);
    net->counters.rx_no_buffers += stop == NET_NO_BUFFERS;
    net->counters.rx_throttled += stop == NET_THROTTLED;
    return stop;
}

/* The buffers for a frame of `len` bytes, or as many as can be had at once. */
static enum ring_result collect(struct net *net, uint64_t len)
{
    struct net_batch batch = net_batch_begin(net);
    enum ring_result popped = RING_CHAIN;

    while (popped == RING_CHAIN && !enough(net, len))
        popped = net_batch_spent(net, &batch) ? RING_EMPTY : take_chain(net, &batch);
    return popped;
}

int net_deliver(struct net *net, const uint8_t *frame, uint32_t len)
{
    static const uint8_t header[NET_HEADER];
    uint64_t whole = (uint64_t)len + NET_HEADER;

    if (!net->rx)
        return 0;
    ring_suppress_kicks(net->rx);
    int ready = collect(net, whole) == RING_CHAIN;
    if (ready && net->pool.room >= whole && whole >= NET_MIN_FRAME) {
        scatter(&net->pool, 0, header, NET_HEADER);
        scatter(&net->pool, NET_HEADER, frame, len);
        publish(net, whole);
    } else {
        net->counters.rx_fails += (uint64_t)ready;
    }
    give_back(net);
    net_signal(net, net->rx);
    return ready;
}
