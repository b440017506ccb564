#include "vmmd/virtio/net.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "vmmd/virtio/net_parts.h"

/* Offsets into a chain: the header, then the Ethernet frame. */
#define SOURCE_MAC (NET_HEADER + 6)
#define ETHERTYPE (NET_HEADER + 12)
#define IPV4_TARGET (NET_HEADER + 30)
#define ARP_TARGET (NET_HEADER + 38)
#define PEEK (NET_HEADER + 42)

static void gather(const struct ring_chain *chain, uint64_t at, uint8_t *to, uint64_t len)
{
    const uint8_t *from;

    for (uint64_t part; len; at += part, to += part, len -= part) {
        part = len;
        if (!(from = net_at(chain->segment, chain->readable, at, &part)))
            return;
        memcpy(to, from, part);
    }
}

static int well_formed(const struct ring_chain *chain)
{
    return chain->readable_len >= NET_MIN_FRAME && chain->readable_len <= NET_MAX_FRAME;
}

/* Whether the frame is for the metadata service: ARP for its address, or IPv4
 * to it. `head` is PEEK bytes; those behind a shorter frame are zero. */
static int detours(const struct net *net, const uint8_t *head)
{
    if (!net->detour || head[ETHERTYPE] != 8)
        return 0;
    uint32_t target = head[ETHERTYPE + 1] == 0   ? IPV4_TARGET
                      : head[ETHERTYPE + 1] == 6 ? ARP_TARGET
                                                 : 0;
    return target && !memcmp(head + target, net->detour_ip, sizeof net->detour_ip);
}

/* Looks at the frame's addresses, if anybody asks: 1 if it is to be detoured. */
static int look(struct net *net)
{
    uint8_t head[PEEK] = {0};

    if (!net->check_mac && !net->detour)
        return 0;
    gather(&net->chain, 0, head, PEEK);
    if (detours(net, head))
        return 1;
    net->counters.tx_spoofed +=
        net->check_mac && memcmp(head + SOURCE_MAC, net->mac, sizeof net->mac);
    return 0;
}

static enum net_stop go_on_after(struct net *net, int error)
{
    net->counters.tap_write_fails++;
    int lost = error == EIO || error == EBADFD || error == ENODEV || error == EBADF;
    int news = lost && !net->tap_lost;
    net->tap_errno = lost ? error : net->tap_errno;
    net->tap_lost = (uint8_t)lost;
    return news ? NET_TAP_ERROR : NET_EMPTY;
}

static void note_write(struct net *net, uint64_t took)
{
    pace_account(&net->counters.tap_write, took);
    net->counters.tx_frames++;
    net->counters.tx_bytes += net->chain.readable_len;
    net->tap_lost = 0;
}

/* One buffer is what most frames are, and write() costs a tenth less. */
static ssize_t write_frame(const struct net *net)
{
    const struct ring_chain *chain = &net->chain;

    if (chain->readable == 1)
        return write(net->tap_fd, chain->segment->iov_base, chain->segment->iov_len);
    return writev(net->tap_fd, chain->segment, chain->readable);
}

/* Sends the popped chain. EMPTY: go on. DETOUR and WOULD_BLOCK: it is given back. */
static enum net_stop send_frame(struct net *net, struct net_batch *batch)
{
    const struct ring_chain *chain = &net->chain;
    enum net_stop stop = NET_EMPTY;
    uint64_t begun = batch->now_ns;

    if (!well_formed(chain)) {
        net->counters.tx_malformed++;
    } else if (look(net)) {
        ring_undo_pop(net->tx, chain->head);
        return NET_DETOUR;
    } else if (write_frame(net) >= 0) {
        batch->now_ns = pace_clock_ns();
        note_write(net, batch->now_ns - begun);
    } else if (errno == EAGAIN) {
        ring_undo_pop(net->tx, chain->head);
        return NET_WOULD_BLOCK;
    } else {
        stop = go_on_after(net, errno);
    }
    net_batch_take(batch, &net->tx_limit, chain->readable_len);
    ring_push(net->tx, chain->head, 0);
    return stop;
}

static enum net_stop send_all(struct net *net, struct net_batch *batch)
{
    enum net_stop stop = NET_EMPTY;

    while (stop == NET_EMPTY) {
        if (net_batch_spent(net, batch))
            return NET_BUDGET;
        if (net_limit_reached(&net->tx_limit))
            return ring_pending(net->tx) ? NET_THROTTLED : NET_EMPTY;
        enum ring_result popped = ring_pop(net->tx, &net->chain);
        if (popped != RING_CHAIN)
            return popped == RING_BROKEN ? NET_BROKEN : NET_EMPTY;
        stop = send_frame(net, batch);
    }
    return stop;
}

/* A driver that sends, or that was just given frames to answer, may send soon:
 * whether looking pays is learned, as for a disk. 1 if a chain is there; kicks
 * are on when it says 0. */
static int more(struct net *net, uint64_t served)
{
    if (served && net->spin_ns && pace_worth_it(&net->spin, served)) {
        int hit = pace_poll(net->tx, net->spin_ns);
        net->counters.spins++;
        net->counters.spin_hits += (uint64_t)hit;
        pace_learn(&net->spin, hit);
        if (hit)
            return 1;
    }
    return ring_arm_kicks(net->tx);
}

static void count_stop(struct net *net, const struct net_batch *batch, enum net_stop stop)
{
    net->counters.tx_no_avail += stop == NET_EMPTY && !batch->requests;
    net->counters.tx_throttled += stop == NET_THROTTLED;
    if (stop != NET_EMPTY && stop != NET_BROKEN)
        net->counters.tx_remaining += ring_waiting(net->tx);
}

enum net_stop net_drain_tx(struct net *net)
{
    if (!net->tx)
        return NET_EMPTY;
    struct net_batch batch = net_batch_begin(net);
    uint64_t served, seen = 0;
    enum net_stop stop;
    do {
        ring_suppress_kicks(net->tx);
        stop = send_all(net, &batch);
        net_signal(net, net->tx);
        served = batch.requests - seen + net->received;
        seen = batch.requests;
        net->received = 0;
    } while (stop == NET_EMPTY && more(net, served));
    count_stop(net, &batch, stop);
    return stop;
}

uint32_t net_take_detoured(struct net *net, uint8_t *frame, uint32_t size)
{
    if (!net->tx || ring_pop(net->tx, &net->chain) != RING_CHAIN)
        return 0;
    uint64_t len = net->chain.readable_len - NET_HEADER;
    if (well_formed(&net->chain) && len <= size) {
        gather(&net->chain, NET_HEADER, frame, len);
        net->counters.detoured++;
    } else {
        net->counters.tx_malformed++;
        len = 0;
    }
    ring_push(net->tx, net->chain.head, 0);
    return (uint32_t)len;
}

void net_reset(struct net *net)
{
    net->rx = net->tx = NULL;
    net->irq = NULL;
    net->received = 0;
    net->tap_lost = 0;
    net->spin = (struct pace_habit){.probe_after = PACE_PROBE_FIRST};
}
