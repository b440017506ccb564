#include "vmmd/virtio/ring.h"

#include <stddef.h>
#include <string.h>
#include <unistd.h>

#define DESC_NEXT 1
#define DESC_WRITE 2
#define DESC_INDIRECT 4
#define AVAIL_NO_INTERRUPT 1
#define USED_NO_NOTIFY 1

/* Both rings start with flags and idx; entries follow, then the event index. */
#define IDX 2
#define ENTRIES 4
#define USED_SIZE 8

#define MAX_CHAIN_LEN (1ull << 32)

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t next;
};

typedef uint64_t two_words __attribute__((vector_size(16), aligned(1)));

/* One 16-byte volatile load: the guest may rewrite the descriptor at any time,
 * so nothing of it is ever read a second time. */
static struct desc copy_desc(const struct ring *r, uint16_t index)
{
    union {
        two_words raw;
        struct desc desc;
    } copy;
    copy.raw = *(const volatile two_words *)(r->desc_host + 16u * index);
    return copy.desc;
}

static uint16_t load16(const uint8_t *at, int order)
{
    return __atomic_load_n((const uint16_t *)at, order);
}

static enum ring_result broken(struct ring *r, const char *fault)
{
    r->broken = 1;
    r->fault = fault;
    return RING_BROKEN;
}

static int test_in_flight(const struct ring *r, uint16_t head)
{
    return r->in_flight[head >> 6] >> (head & 63) & 1;
}

static void flip_in_flight(struct ring *r, uint16_t head)
{
    r->in_flight[head >> 6] ^= 1ull << (head & 63);
}

void ring_reset(struct ring *r)
{
    const struct guest_memory *mem = r->mem;
    uint32_t epoch = r->epoch + 1, stale = r->stale;
    memset(r, 0, sizeof(*r));
    r->mem = mem;
    r->epoch = epoch;
    r->stale = stale;
}

/* Host pointer to a part of the ring, NULL when outside memory or unaligned. */
static uint8_t *part(const struct ring *r, uint64_t gpa, uint64_t len, uint64_t align)
{
    uint8_t *host = gm_slice(r->mem, gpa, len);
    return ((uintptr_t)host | gpa) & (align - 1) ? NULL : host;
}

int ring_enable(struct ring *r)
{
    r->ready = 0;
    r->fault = NULL;
    if (!r->size || r->size > RING_MAX_SIZE || r->size & (r->size - 1))
        r->fault = "queue size is not a power of two up to 256";
    else if (!(r->desc_host = part(r, r->desc, 16ull * r->size, 16)))
        r->fault = "descriptor table is not in guest memory";
    else if (!(r->avail_host = part(r, r->avail, 6 + 2ull * r->size, 2)))
        r->fault = "available ring is not in guest memory";
    else if (!(r->used_host = part(r, r->used, 6 + 8ull * r->size, 4)))
        r->fault = "used ring is not in guest memory";
    if (r->fault)
        return -1;
    r->ready = 1;
    return 0;
}

/* Walks the chain from `head`; NULL or the rule that it breaks. */
static const char *walk(const struct ring *r, uint16_t head, struct ring_chain *chain)
{
    uint32_t count = 0;
    struct desc d = {.flags = DESC_NEXT, .next = head};

    chain->head = head;
    chain->readable = chain->writable = chain->reserved = 0;
    chain->readable_len = chain->writable_len = 0;
    while (d.flags & DESC_NEXT) {
        if (d.next >= r->size)
            return "next descriptor is outside the table";
        if (count == r->size)
            return "descriptor chain loops";
        d = copy_desc(r, d.next);
        if (d.flags & DESC_INDIRECT)
            return "indirect descriptor, which was not offered";
        void *host = gm_slice(r->mem, d.addr, d.len);
        if (!host)
            return "buffer is not in guest memory";
        if (d.flags & DESC_WRITE) {
            chain->writable++;
            chain->writable_len += d.len;
        } else if (chain->writable) {
            return "readable descriptor after a writable one";
        } else {
            chain->readable++;
            chain->readable_len += d.len;
        }
        chain->segment[count].iov_base = host;
        chain->segment[count].iov_len = d.len;
        chain->gpa[count++] = d.addr;
    }
    if (chain->readable_len + chain->writable_len >= MAX_CHAIN_LEN)
        return "chain is longer than 4 GiB";
    return NULL;
}

enum ring_result ring_pop(struct ring *r, struct ring_chain *chain)
{
    if (r->broken)
        return RING_BROKEN;
    if (!r->ready)
        return RING_EMPTY;
    /* Acquire: the entry and descriptors are read after the index. */
    uint16_t ahead = load16(r->avail_host + IDX, __ATOMIC_ACQUIRE) - r->next_avail;
    if (!ahead)
        return RING_EMPTY;
    if (ahead > r->size)
        return broken(r, "available index is more than the queue ahead");
    uint32_t slot = r->next_avail & (r->size - 1u);
    uint16_t head = load16(r->avail_host + ENTRIES + 2 * slot, __ATOMIC_RELAXED);
    if (head >= r->size)
        return broken(r, "head is outside the table");
    if (test_in_flight(r, head))
        return broken(r, "head is offered while in flight");
    const char *fault = walk(r, head, chain);
    if (fault)
        return broken(r, fault);
    flip_in_flight(r, head);
    r->next_avail++;
    return RING_CHAIN;
}

void ring_undo_pop(struct ring *r, uint16_t head)
{
    if (!r->ready || head >= r->size || !test_in_flight(r, head))
        return;
    flip_in_flight(r, head);
    r->next_avail--;
}

uint16_t ring_waiting(const struct ring *r)
{
    if (!r->ready || r->broken)
        return 0;
    return load16(r->avail_host + IDX, __ATOMIC_ACQUIRE) - r->next_avail;
}

int ring_pending(const struct ring *r)
{
    return ring_waiting(r) != 0;
}

void ring_fill(struct ring *r, uint16_t head, uint32_t written)
{
    if (!r->ready || head >= r->size || !test_in_flight(r, head)) {
        r->stale++;
        return;
    }
    flip_in_flight(r, head);
    uint32_t at = ENTRIES + USED_SIZE * (r->next_used & (r->size - 1u));
    /* One range from the index to the entry: a used ring spans two pages at
     * most, so this marks their pages and no other. */
    gm_mark(r->mem, r->used + IDX, at + USED_SIZE - IDX);
    uint32_t *entry = (uint32_t *)(r->used_host + at);
    __atomic_store_n(entry, head, __ATOMIC_RELAXED);
    __atomic_store_n(entry + 1, written, __ATOMIC_RELAXED);
    r->next_used++;
}

void ring_publish(struct ring *r)
{
    if (!r->ready)
        return;
    /* Release: the driver sees the entries, and the data, before the index. */
    __atomic_store_n((uint16_t *)(r->used_host + IDX), r->next_used, __ATOMIC_RELEASE);
}

void ring_push(struct ring *r, uint16_t head, uint32_t written)
{
    uint16_t before = r->next_used;

    ring_fill(r, head, written);
    if (r->next_used != before)
        ring_publish(r);
}

int ring_should_signal(struct ring *r)
{
    uint16_t pushed = r->next_used - r->signalled_used;
    if (!r->ready || !pushed)
        return 0;
    int valid = r->signalled_valid;
    r->signalled_used = r->next_used;
    r->signalled_valid = 1;
    /* Full: the used index is out before we read what the driver asks, as the
     * driver writes what it asks before it reads the index. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!r->event_idx)
        return !(load16(r->avail_host, __ATOMIC_RELAXED) & AVAIL_NO_INTERRUPT);
    if (!valid)
        return 1;
    uint16_t event = load16(r->avail_host + ENTRIES + 2 * r->size, __ATOMIC_RELAXED);
    return (uint16_t)(r->next_used - event - 1) < pushed;
}

/* Where and what the device tells the driver about kicks. */
static void tell(struct ring *r, uint32_t offset, uint16_t value)
{
    uint8_t *at = r->used_host + offset;
    if (load16(at, __ATOMIC_RELAXED) == value)
        return;
    gm_mark(r->mem, r->used + offset, 2);
    __atomic_store_n((uint16_t *)at, value, __ATOMIC_RELAXED);
}

static uint32_t avail_event_at(const struct ring *r)
{
    return ENTRIES + USED_SIZE * r->size;
}

void ring_suppress_kicks(struct ring *r)
{
    if (!r->ready)
        return;
    if (!r->event_idx) {
        tell(r, 0, USED_NO_NOTIFY);
        return;
    }
    /* The event index that is farthest from anything the driver may add; it is
     * renewed only when it has come within 16,384 entries. */
    uint16_t event = load16(r->used_host + avail_event_at(r), __ATOMIC_RELAXED);
    if ((uint16_t)(event - r->next_avail - 0x4000) >= 0x8000)
        tell(r, avail_event_at(r), r->next_avail + 0x8000);
}

int ring_arm_kicks(struct ring *r)
{
    if (!r->ready)
        return 0;
    if (r->event_idx)
        tell(r, avail_event_at(r), r->next_avail);
    else
        tell(r, 0, 0);
    /* Full: what we ask is out before we look, as the driver publishes its
     * index before it reads what we ask. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return ring_pending(r);
}

void ring_mark_written(const struct ring *r, const struct ring_chain *chain, uint64_t len)
{
    for (uint32_t i = chain->readable; len && i < chain->readable + chain->writable; i++) {
        uint64_t part_len = chain->segment[i].iov_len;
        if (part_len > len)
            part_len = len;
        gm_mark(r->mem, chain->gpa[i], part_len);
        len -= part_len;
    }
}

void irq_raise(struct irq_line *line, uint32_t bits)
{
    const uint64_t one = 1;
    __atomic_fetch_or((uint32_t *)(line->page + IRQ_STATUS), bits, __ATOMIC_SEQ_CST);
    line->raised++;
    if (line->fd >= 0) {
        /* A full counter means that the signal is there already. */
        ssize_t ignored = write(line->fd, &one, sizeof(one));
        (void)ignored;
    }
}
