#ifndef VMMD_VIRTIO_RING_H
#define VMMD_VIRTIO_RING_H
#include <stdint.h>
#include <sys/uio.h>

#include "vmmd/memory.h"

/* The split virtqueue (virtio 1.2, 2.7), device side. Guest memory is hostile:
 * a descriptor is copied once, then checked, then used. A ring that breaks the
 * rules is `broken` for good (until the driver resets the device) and `fault`
 * says which rule, in static text. */

#if 0
// cffi>
struct iovec {
    void *iov_base;
    size_t iov_len;
};
// <cffi
#endif

// cffi>
#define RING_MAX_SIZE 256

enum ring_result { RING_EMPTY = 0, RING_CHAIN = 1, RING_BROKEN = 2 };

/* Fill mem, desc, avail, used, size and event_idx, then ring_enable(). The
 * indices are the device's own, free-running; what ring_reset() clears. */
struct ring {
    const struct guest_memory *mem;
    uint64_t desc;
    uint64_t avail;
    uint64_t used;
    uint16_t size;
    uint16_t next_avail;
    uint16_t next_used;
    uint16_t signalled_used;
    uint8_t signalled_valid;
    uint8_t event_idx;
    uint8_t ready;
    uint8_t broken;
    const char *fault;
    uint8_t *desc_host;    /* set by ring_enable: mappings never move */
    uint8_t *avail_host;
    uint8_t *used_host;
    uint64_t in_flight[4]; /* a bit per head that was popped and not pushed */
    uint32_t epoch;        /* lives of this ring: grows at each ring_reset */
    uint32_t stale;        /* pushes ignored: off, or the head not in flight */
};

/* One descriptor chain: `readable` device-readable segments, then `writable`
 * device-writable ones. segment[i] is host memory, gpa[i] the guest's name for
 * it (to mark what the device writes). Lengths are sums over the segments. */
struct ring_chain {
    uint16_t head;
    uint16_t readable;
    uint16_t writable;
    uint16_t reserved;
    uint64_t readable_len;
    uint64_t writable_len;
    struct iovec segment[256];
    uint64_t gpa[256];
};

#define IRQ_STATUS 0x60

/* The interrupt of a virtio-mmio device: the InterruptStatus word at IRQ_STATUS
 * of its register page and the irqfd (-1: none, as in tests). */
struct irq_line {
    uint8_t *page;
    int fd;
    uint64_t raised;
};

/* Forgets everything but `mem` (and counts the epoch): the ring is off. */
void ring_reset(struct ring *ring);

/* Checks size (power of two, 1..256), addresses and alignment against memory
 * and makes the ring ready at its indices. Returns 0, or -1 with `fault` set. */
int ring_enable(struct ring *ring);

/* Takes the next chain. RING_EMPTY (also when off), RING_CHAIN or RING_BROKEN.
 * A chain may have length 0. Only RING_CHAIN fills `chain`. */
enum ring_result ring_pop(struct ring *ring, struct ring_chain *chain);

/* Gives the chain popped last back: the next pop returns it again. */
void ring_undo_pop(struct ring *ring, uint16_t head);

/* 1 if the driver has made a chain available that was not popped; 0 when off
 * or broken. */
int ring_pending(const struct ring *ring);

/* How many chains those are, as the driver says: a hostile one says anything. */
uint16_t ring_waiting(const struct ring *ring);

/* Publishes `head` as used with `written` bytes. A head that is not in flight
 * (pushed already, or popped before a reset) changes nothing but `stale`. */
void ring_push(struct ring *ring, uint16_t head, uint32_t written);

/* The two halves of that, for chains that must come to be used all at once:
 * ring_fill for each, then one ring_publish. */
void ring_fill(struct ring *ring, uint16_t head, uint32_t written);
void ring_publish(struct ring *ring);

/* 1 if the driver asks for an interrupt for what was pushed since the last
 * call (EVENT_IDX or flags; full fence inside). Once per batch. */
int ring_should_signal(struct ring *ring);

/* Asks the driver not to kick while the device looks by itself. Good for
 * 16,384 pops; free when asked already, so call it at each drain. */
void ring_suppress_kicks(struct ring *ring);

/* Asks for kicks again, fences and looks once more: 1 if a chain is there. */
int ring_arm_kicks(struct ring *ring);

/* Marks the first `len` bytes of the writable segments as host-written. */
void ring_mark_written(const struct ring *ring, const struct ring_chain *chain,
                       uint64_t len);

/* Sets `bits` in InterruptStatus (bit 0 used ring, bit 1 config), then signals. */
void irq_raise(struct irq_line *line, uint32_t bits);
// <cffi
#endif
