// sources: vmmd/memory.c vmmd/virtio/ring.c
/* libFuzzer: a driver that writes anything, and a device that keeps the rules.
 *
 * The input is a layout and then operations of both. Guest memory is two heap
 * blocks, so that ASan sees any access outside; what ring.h promises beside
 * that is checked here. fuzz/run builds and runs it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmmd/memory.h"
#include "vmmd/virtio/ring.h"
#include "fuzz/input.h"

#define LOW_SIZE 0x3000u
#define HIGH_GPA 0x10000u
#define HIGH_SIZE 0x1000u
#define PAGES 3

#define MUST(what)                                                       \
    do {                                                                 \
        if (!(what)) {                                                   \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
            abort();                                                     \
        }                                                                \
    } while (0)

struct rig {
    struct guest_memory mem;
    uint64_t dirty[2][2];
    struct ring ring;
    struct ring_chain chain;
    uint8_t held[RING_MAX_SIZE]; /* our own book of what is in flight */
    uint32_t holding;
    int may_undo;
    uint16_t last;
};

static void check_chain(struct rig *rig)
{
    const struct ring_chain *chain = &rig->chain;
    uint64_t sum[2] = {0, 0};
    uint32_t count = chain->readable + chain->writable;

    MUST(count >= 1 && count <= rig->ring.size);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *host = chain->segment[i].iov_base;
        size_t len = chain->segment[i].iov_len;
        MUST(host == gm_slice(&rig->mem, chain->gpa[i], len));
        sum[i >= chain->readable] += len;
        /* Touch it as a device would; ASan knows where memory ends. */
        if (len && i < chain->readable) {
            volatile uint8_t seen = host[0] ^ host[len - 1];
            (void)seen;
        } else if (len) {
            host[0] ^= 1;
            host[len - 1] ^= 1;
        }
    }
    MUST(sum[0] == chain->readable_len && sum[1] == chain->writable_len);
    MUST(sum[0] + sum[1] < 1ull << 32);
}

static void pop(struct rig *rig, uint64_t written)
{
    int was_broken = rig->ring.broken;
    enum ring_result result = ring_pop(&rig->ring, &rig->chain);

    MUST(!was_broken || result == RING_BROKEN);
    MUST((result == RING_BROKEN) == rig->ring.broken);
    MUST(!rig->ring.broken || rig->ring.fault);
    if (result != RING_CHAIN)
        return;
    MUST(rig->chain.head < rig->ring.size && !rig->held[rig->chain.head]);
    check_chain(rig);
    ring_mark_written(&rig->ring, &rig->chain, written);
    rig->held[rig->chain.head] = 1;
    rig->holding++;
    rig->last = rig->chain.head;
    rig->may_undo = 1;
}

static void push(struct rig *rig, uint16_t head, uint32_t written)
{
    uint16_t before = rig->ring.next_used;
    int ours = head < RING_MAX_SIZE && rig->held[head];

    ring_push(&rig->ring, head, written);
    MUST((uint16_t)(rig->ring.next_used - before) == ours);
    if (ours) {
        rig->held[head] = 0;
        rig->holding--;
        rig->may_undo = 0;
    }
}

static void undo(struct rig *rig)
{
    int held = rig->held[rig->last];
    if (held && !rig->may_undo)
        return;
    ring_undo_pop(&rig->ring, rig->last);
    if (!held)
        return;
    rig->held[rig->last] = 0;
    rig->holding--;
    rig->may_undo = 0;
}

static void enable(struct rig *rig, struct input *in)
{
    uint64_t where = take(in, 2);
    ring_reset(&rig->ring);
    memset(rig->held, 0, sizeof(rig->held));
    rig->holding = rig->may_undo = 0;
    rig->ring.size = where & 0x8000 ? (uint16_t)take(in, 2) : 1u << (where >> 8) % 9;
    rig->ring.event_idx = where >> 3 & 1;
    rig->ring.desc = where & 16 ? take(in, 3) : 0x100;
    rig->ring.avail = where & 32 ? take(in, 3) : 0x1000;
    rig->ring.used = where & 64 ? take(in, 3) : 0x1FF8;
    rig->ring.next_avail = rig->ring.next_used = where & 128 ? take(in, 2) : 0;
    rig->ring.signalled_used = rig->ring.next_used;
    if (ring_enable(&rig->ring)) {
        MUST(rig->ring.fault && !rig->ring.ready);
        return;
    }
    MUST(rig->ring.size <= RING_MAX_SIZE);
    memcpy(rig->ring.avail_host + 2, &rig->ring.next_avail, 2);
}

static void poke(struct rig *rig, uint64_t gpa, uint64_t value, size_t len)
{
    uint8_t *host = gm_slice(&rig->mem, gpa, len);
    if (host)
        memcpy(host, &value, len);
}

/* A descriptor: mostly in memory, now and then anything. */
static void write_descriptor(struct rig *rig, struct input *in)
{
    uint64_t how = take(in, 1), gpa = rig->ring.desc + 16 * take(in, 1);
    poke(rig, gpa, how & 1 ? take(in, 8) : take(in, 2), 8);
    poke(rig, gpa + 8, how & 2 ? take(in, 4) : take(in, 1), 4);
    poke(rig, gpa + 12, how & 4 ? take(in, 2) : how >> 3 & 3, 2);
    poke(rig, gpa + 14, how & 32 ? take(in, 2) : take(in, 1), 2);
}

static void offer(struct rig *rig, struct input *in)
{
    const struct ring *ring = &rig->ring;
    uint16_t index = 0;
    if (!ring->ready)
        return;
    memcpy(&index, ring->avail_host + 2, 2);
    poke(rig, ring->avail + 4 + 2 * (index & (ring->size - 1u)), take(in, 1), 2);
    poke(rig, ring->avail + 2, index + 1, 2);
}

static void step(struct rig *rig, struct input *in)
{
    switch (take(in, 1) % 14) {
    case 0: case 1: write_descriptor(rig, in); break;
    case 2: case 3: offer(rig, in); break;
    case 4: case 5: pop(rig, take(in, 2)); break;
    case 6: push(rig, rig->last, (uint32_t)take(in, 4)); break;
    case 7: push(rig, (uint16_t)take(in, 2), (uint32_t)take(in, 4)); break;
    case 8: undo(rig); break;
    case 9: ring_should_signal(&rig->ring); break;
    case 10: ring_suppress_kicks(&rig->ring); break;
    case 11: ring_arm_kicks(&rig->ring); break;
    case 12: poke(rig, take(in, 2), take(in, 2), 2); break;
    default: enable(rig, in);
    }
    MUST(!rig->ring.ready
         || (uint16_t)(rig->ring.next_avail - rig->ring.next_used) == rig->holding);
    MUST(rig->holding <= RING_MAX_SIZE);
    MUST(!ring_pending(&rig->ring) || (rig->ring.ready && !rig->ring.broken));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rig rig;
    struct input in = {data, size};

    memset(&rig, 0, sizeof(rig));
    rig.mem.count = 2;
    rig.mem.region[0] = (struct gm_region){0, LOW_SIZE, calloc(1, LOW_SIZE), rig.dirty[0]};
    rig.mem.region[1] =
        (struct gm_region){HIGH_GPA, HIGH_SIZE, calloc(1, HIGH_SIZE), rig.dirty[1]};
    rig.ring.mem = &rig.mem;
    enable(&rig, &in);
    while (in.left)
        step(&rig, &in);
    MUST(!(rig.dirty[0][0] >> PAGES));
    free(rig.mem.region[0].host);
    free(rig.mem.region[1].host);
    return 0;
}
