#define _GNU_SOURCE
#include "vmmd/virtio/block.h"

#include <errno.h>
#include <stddef.h>

#include "vmmd/virtio/block_request.h"
#include "vmmd/virtio/pace.h"


/* A page-cached MiB takes about 100 us: more would hold up the loop. */
#define INLINE_BYTES (1ull << 20)
/* A write that waited for SLOW_NS sends those of the next SLOW_FOR_NS to workers. */
#define SLOW_NS 1000000ull
#define SLOW_FOR_NS 100000000ull

/* What a batch has taken, and when the last request was seen. */
struct batch {
    uint64_t now_ns;
    uint64_t end_ns;
    uint64_t requests;
    uint64_t bytes;
    uint64_t since_wait;
};

/* Acquire: a DONE slot's result is read after its state. */
static uint32_t state_of(const struct block_slot *slot)
{
    return __atomic_load_n(&slot->state, __ATOMIC_ACQUIRE);
}

static void count_request(struct block *block, const struct block_slot *slot)
{
    struct block_counters *c = &block->counters;
    uint64_t bytes = slot->end - slot->begin;

    if (slot->type == TYPE_IN) {
        c->reads++;
        c->read_bytes += bytes;
        pace_account(&c->read_latency, slot->took_ns);
    } else if (slot->type == TYPE_OUT) {
        c->writes++;
        c->write_bytes += bytes;
        pace_account(&c->write_latency, slot->took_ns);
    } else if (slot->type == TYPE_FLUSH) {
        c->flushes++;
    }
}

/* Writes the status, publishes the chain, frees the slot. */
static void answer(struct block *block, struct block_slot *slot)
{
    uint32_t written = slot->status ? 1 : 0;

    if (slot->type == TYPE_IN)
        written += (uint32_t)(slot->offset - slot->begin);
    else if (slot->type == TYPE_GET_ID && slot->result == STATUS_OK)
        written += sizeof block->id;
    if (slot->result == STATUS_OK)
        count_request(block, slot);
    if (slot->status)
        *slot->status = slot->result;
    ring_push(block->ring, slot->chain.head, written);
    block->unsignalled = 1;
    slot->state = BLOCK_FREE;
}

static int in_the_way(const struct block_slot *earlier, const struct block_slot *slot)
{
    if (slot->type == TYPE_FLUSH)
        return earlier->type == TYPE_OUT;
    if (earlier->type != TYPE_OUT && slot->type != TYPE_OUT)
        return 0;
    return earlier->begin < slot->end && slot->begin < earlier->end;
}

/* Whether a request taken before this one has to come first; also one of a
 * driver's last life that a worker still holds. */
static int blocked(const struct block *block, const struct block_slot *slot)
{
    for (int i = 0; i < BLOCK_SLOTS; i++) {
        const struct block_slot *s = &block->slot[i];
        if (state_of(s) != BLOCK_FREE && s->ticket < slot->ticket && in_the_way(s, slot))
            return 1;
    }
    return 0;
}

static int flushing(const struct block *block)
{
    for (int i = 0; i < BLOCK_SLOTS; i++)
        if (state_of(&block->slot[i]) != BLOCK_FREE && block->slot[i].type == TYPE_FLUSH)
            return 1;
    return 0;
}

/* Whether this one might hold up the loop, as far as can be said beforehand. */
static int slow(const struct block *block, const struct block_slot *slot, uint64_t now)
{
    if (slot->type == TYPE_FLUSH || slot->left > INLINE_BYTES)
        return 1;
    return slot->type == TYPE_OUT &&
           (now < block->slow_until_ns || (block->live && flushing(block)));
}

/* The first slow write is a suspicion; one that is known to have slept counts. */
static void note_slow(struct block *block, const struct block_slot *slot, uint64_t now)
{
    if (slot->type != TYPE_OUT || slot->took_ns <= SLOW_NS)
        return;
    if (slot->slept)
        block->slow_until_ns = now + SLOW_FOR_NS;
    block->watch_until_ns = now + 2 * SLOW_FOR_NS;
}

static int transfer_inline(const struct block *block, struct block_slot *slot,
                           uint64_t now)
{
    if (slot->type == TYPE_OUT && now < block->watch_until_ns)
        return request_transfer_watched(slot);
    return request_transfer(slot, block->nowait ? RWF_NOWAIT : 0);
}

static void stay(struct block *block, struct block_slot *slot, enum block_state state)
{
    slot->state = state;
    block->live++;
    block->counters.workers++;
}

/* Carries a parsed request out, or sees that it stays. */
static void carry_out(struct block *block, struct block_slot *slot, struct batch *batch)
{
    if (block->live && blocked(block, slot)) {
        stay(block, slot, BLOCK_WAITING);
        return;
    }
    if (slow(block, slot, batch->now_ns)) {
        stay(block, slot, BLOCK_READY);
        return;
    }
    int error = transfer_inline(block, slot, batch->now_ns);
    uint64_t now = pace_clock_ns();
    slot->took_ns = now - batch->now_ns;
    batch->now_ns = now;
    if (block->nowait && slot->type == TYPE_IN &&
        (error == EAGAIN || error == EOPNOTSUPP)) {
        stay(block, slot, BLOCK_READY);
        return;
    }
    note_slow(block, slot, now);
    slot->result = error ? STATUS_IOERR : STATUS_OK;
    block->counters.invalid += !!error;
    answer(block, slot);
}

static void serve(struct block *block, struct block_slot *slot, struct batch *batch)
{
    slot->ticket = block->tickets++;
    batch->requests++;
    batch->since_wait++;
    block->ops_used++;
    if (request_parse(block, slot)) {
        batch->bytes += slot->left;
        block->bytes_used += slot->left;
        carry_out(block, slot, batch);
        return;
    }
    if (slot->result == STATUS_UNSUPP)
        block->counters.invalid++;
    else if (slot->result != STATUS_OK)
        block->counters.malformed++;
    answer(block, slot);
    /* Nothing moved, so nothing looked at the clock. */
    if (batch->requests % 32 == 0)
        batch->now_ns = pace_clock_ns();
}

static struct block_slot *free_slot(struct block *block)
{
    for (int i = 0; block->live < BLOCK_SLOTS; i++)
        if (state_of(&block->slot[i]) == BLOCK_FREE)
            return &block->slot[i];
    return NULL;
}

/* Takes chains until something stops it. */
static enum block_stop serve_all(struct block *block, struct batch *batch)
{
    for (;;) {
        if (batch->requests >= block->max_requests ||
            batch->bytes >= block->max_bytes || batch->now_ns >= batch->end_ns)
            return BLOCK_BUDGET;
        if (block->ops_used >= block->ops_allowed ||
            block->bytes_used >= block->bytes_allowed)
            return ring_pending(block->ring) ? BLOCK_THROTTLED : BLOCK_EMPTY;
        struct block_slot *slot = free_slot(block);
        if (!slot)
            return BLOCK_WORKER;
        switch (ring_pop(block->ring, &slot->chain)) {
        case RING_CHAIN:
            serve(block, slot, batch);
            break;
        case RING_BROKEN:
            return BLOCK_BROKEN;
        default:
            return BLOCK_EMPTY;
        }
    }
}

static void signal_used(struct block *block)
{
    if (!block->unsignalled)
        return;
    block->unsignalled = 0;
    if (ring_should_signal(block->ring))
        irq_raise(block->irq, 1);
}

/* A wake costs 17 to 30 us, an answer to a spinning drain about one; but where
 * the vCPU has only this CPU a spin keeps it from asking. No figure known
 * beforehand tells the two apart (gap averages and CPU counts failed), so it is
 * learned from whether it pays. */
static int spin(struct block *block, uint64_t served)
{
    if (!block->spin_ns || !pace_worth_it(&block->spin, served))
        return 0;
    int hit = pace_poll(block->ring, block->spin_ns);
    block->counters.spins++;
    block->counters.spin_hits += (uint64_t)hit;
    pace_learn(&block->spin, hit);
    return hit;
}

/* Where a spin cannot pay, a wake straight into this drain still costs a third
 * less CPU than one through the loop, which on a shared CPU is the guest's time.
 * Whatever else the loop has to do ends the doze, and says nothing about it. The
 * time limit must lie beyond the scheduler's next tick: a shorter one arms a
 * hardware timer each time, which under a hypervisor cost 10 us a request. */
static int doze(struct block *block, uint64_t served)
{
    if (block->kick_fd < 0 || !block->doze_ns || !pace_worth_it(&block->doze, served))
        return 0;
    block->counters.dozes++;
    int hit = pace_doze(block->kick_fd, block->loop_fd, block->doze_ns);
    if (hit < 0)
        return 0;
    block->counters.doze_hits += (uint64_t)hit;
    pace_learn(&block->doze, hit);
    return hit;
}

/* After a batch: 1 if there is more. Kicks are on when it says 0. An idle guest,
 * and one whose requests are in workers, is not waited for here. */
static int more(struct block *block, struct batch *batch)
{
    uint64_t served = block->live ? 0 : batch->since_wait;

    batch->since_wait = 0;
    int waited = (served && spin(block, served)) || ring_arm_kicks(block->ring) ||
                 (served && doze(block, served));
    batch->now_ns = waited ? pace_clock_ns() : batch->now_ns;
    return waited;
}

static void count_stop(struct block *block, const struct batch *batch, enum block_stop why)
{
    struct block_counters *c = &block->counters;

    c->no_avail += why == BLOCK_EMPTY && !batch->requests;
    c->throttled += why == BLOCK_THROTTLED;
    c->engine_throttled += why == BLOCK_WORKER;
    if (why != BLOCK_EMPTY && why != BLOCK_BROKEN)
        c->remaining += ring_waiting(block->ring);
}

static void collect(struct block *block)
{
    if (!block->live)
        return;
    for (int i = 0; i < BLOCK_SLOTS; i++) {
        struct block_slot *slot = &block->slot[i];
        if (state_of(slot) != BLOCK_DONE)
            continue;
        block->live--;
        if (slot->dropped) {
            slot->state = BLOCK_FREE;
            continue;
        }
        if (slot->type == TYPE_OUT && slot->took_ns > SLOW_NS)
            note_slow(block, slot, pace_clock_ns());
        block->counters.invalid += slot->result != STATUS_OK;
        answer(block, slot);
    }
    for (int i = 0; i < BLOCK_SLOTS; i++)
        if (state_of(&block->slot[i]) == BLOCK_WAITING && !blocked(block, &block->slot[i]))
            block->slot[i].state = BLOCK_READY;
}

enum block_stop block_drain(struct block *block)
{
    struct batch batch = {.now_ns = pace_clock_ns()};
    enum block_stop why;

    block->ops_used = block->bytes_used = 0;
    collect(block);
    if (!block->ring)
        return BLOCK_EMPTY;
    batch.end_ns = batch.now_ns + block->max_ns;
    do {
        ring_suppress_kicks(block->ring);
        why = serve_all(block, &batch);
        signal_used(block);
    } while (why == BLOCK_EMPTY && more(block, &batch));
    count_stop(block, &batch, why);
    return why;
}

void block_collect(struct block *block)
{
    collect(block);
    if (block->ring)
        signal_used(block);
}

int block_take(struct block *block)
{
    for (int i = 0; i < BLOCK_SLOTS && block->live; i++) {
        if (state_of(&block->slot[i]) == BLOCK_READY) {
            block->slot[i].state = BLOCK_RUNNING;
            return i;
        }
    }
    return -1;
}

void block_reset(struct block *block)
{
    for (int i = 0; i < BLOCK_SLOTS; i++) {
        struct block_slot *slot = &block->slot[i];
        uint32_t state = state_of(slot);
        if (state == BLOCK_WAITING || state == BLOCK_READY) {
            slot->state = BLOCK_FREE;
            block->live--;
        }
        slot->dropped = 1;
    }
    block->ring = NULL;
    block->irq = NULL;
    block->unsignalled = 0;
    block->spin = block->doze = (struct pace_habit){.probe_after = PACE_PROBE_FIRST};
}
