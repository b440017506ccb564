#ifndef VMMD_VIRTIO_BLOCK_H
#define VMMD_VIRTIO_BLOCK_H
#include <stdint.h>

#include "vmmd/virtio/pace.h"
#include "vmmd/virtio/ring.h"

/* The data path of virtio-blk (virtio 1.2, 5.2). The loop calls everything here
 * but block_run, which a worker thread runs on one slot and nothing else.
 *
 * A request lives in a slot from the pop of its chain to its answer. What can be
 * done at once leaves its slot at once; what might block the loop, or overlaps
 * such a one, stays: WAITING until no earlier request stands in its way, READY
 * until the loop hands it to a worker, RUNNING, then DONE until collected. */

// cffi>
#define BLOCK_SLOTS 8

enum block_stop {
    BLOCK_EMPTY = 0,     /* nothing to do; the next chain is kicked */
    BLOCK_BUDGET = 1,    /* call again; kicks are off */
    BLOCK_THROTTLED = 2, /* ops_allowed or bytes_allowed is used up */
    BLOCK_WORKER = 3,    /* every slot is taken: call again when one is done */
    BLOCK_BROKEN = 4     /* the ring broke the rules: ring->fault */
};

enum block_state {
    BLOCK_FREE = 0,
    BLOCK_WAITING = 1,
    BLOCK_READY = 2,
    BLOCK_RUNNING = 3,
    BLOCK_DONE = 4
};

/* One request: `count` segments at `iov` and `left` bytes at file offset `offset`
 * are still to be moved. `begin` and `end` are its whole range in the file. */
struct block_slot {
    uint32_t state;
    uint32_t type;
    int32_t fd;
    uint32_t count;
    struct iovec *iov;
    uint64_t offset;
    uint64_t left;
    uint64_t begin;
    uint64_t end;
    uint64_t ticket;
    uint64_t took_ns;
    uint8_t *status;
    uint8_t result;
    uint8_t dropped;
    uint8_t slept; /* it was a write that waited, not one that was preempted */
    struct ring_chain chain;
};

struct block_counters {
    uint64_t reads;
    uint64_t writes;
    uint64_t flushes;
    uint64_t read_bytes;
    uint64_t write_bytes;
    uint64_t invalid;   /* answered UNSUPP, or IOERR by the file */
    uint64_t malformed; /* answered IOERR, or not at all, for what the chain says */
    uint64_t no_avail;  /* drains that found nothing */
    uint64_t remaining; /* chains left in the ring by drains that stopped early */
    uint64_t throttled; /* drains stopped by the limiter */
    uint64_t engine_throttled; /* drains stopped for want of a slot */
    uint64_t workers;   /* requests handed to a worker */
    uint64_t spins;
    uint64_t spin_hits;
    uint64_t dozes;
    uint64_t doze_hits; /* kicks that ended a doze */
    struct pace_latency read_latency;
    struct pace_latency write_latency;
};

struct block {
    struct ring *ring;
    struct irq_line *irq;
    int32_t fd;
    uint8_t read_only;
    uint8_t writeback;
    uint8_t nowait; /* the file knows RWF_NOWAIT */
    uint8_t unsignalled;
    uint8_t id[20];
    uint32_t live; /* slots that are not FREE */
    uint64_t capacity; /* sectors */

    /* A drain's budget, and what the limiter lets it take; ~0 is no limit.
     * The request that reaches the limit is the last: `*_used` may exceed it. */
    uint64_t max_requests;
    uint64_t max_bytes;
    uint64_t max_ns;
    uint64_t ops_allowed;
    uint64_t bytes_allowed;
    uint64_t ops_used;
    uint64_t bytes_used;

    int32_t kick_fd;  /* the queue's ioeventfd, to doze on; -1: never */
    int32_t loop_fd;  /* readable when the loop has other work: ends a doze */
    uint64_t spin_ns; /* how long one spin looks; 0: never */
    uint64_t doze_ns; /* how long one doze sleeps; 0: never */
    struct pace_habit spin;
    struct pace_habit doze;

    uint64_t tickets;
    uint64_t slow_until_ns;  /* writes go to a worker until then */
    uint64_t watch_until_ns; /* writes are looked at closely until then */
    struct block_counters counters;
    struct block_slot slot[8];
};

/* Answers what workers have finished, then takes chains until there is none, the
 * budget is spent or a slot is wanting. Publishes, signals once per batch. Before
 * it says EMPTY it polls the ring for a while, and then sleeps on the kick for a
 * while, if that has paid lately. */
enum block_stop block_drain(struct block *block);

/* The first half alone: answers what workers have finished and frees the
 * requests that waited for it; takes no chain. */
void block_collect(struct block *block);

/* A READY slot, now RUNNING, for block_run; -1 if there is none. */
int block_take(struct block *block);

/* Carries out the slot's request. Blocks; any thread; touches only the slot. */
void block_run(struct block_slot *slot);

/* Forgets every request: those a worker holds are dropped when they end. */
void block_reset(struct block *block);
// <cffi
#endif
