#define _GNU_SOURCE
#include "vmmd/virtio/block_request.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "vmmd/virtio/pace.h"

struct header {
    uint32_t type;
    uint32_t reserved;
    uint64_t sector;
};

/* Moves the start of what is left `n` bytes on. */
static void advance(struct block_slot *slot, uint64_t n)
{
    slot->left -= n;
    slot->offset += n;
    while (slot->count && n >= slot->iov->iov_len) {
        n -= slot->iov->iov_len;
        slot->iov++;
        slot->count--;
    }
    if (n) {
        slot->iov->iov_base = (uint8_t *)slot->iov->iov_base + n;
        slot->iov->iov_len -= n;
    }
}

/* Takes the first `len` bytes of what is left. The caller has checked `left`. */
static void take_bytes(struct block_slot *slot, void *to, uint64_t len)
{
    for (uint64_t done = 0, part; done < len; done += part) {
        part = slot->iov->iov_len < len - done ? slot->iov->iov_len : len - done;
        memcpy((uint8_t *)to + done, slot->iov->iov_base, part);
        advance(slot, part);
    }
}

/* The other way, for a device id; likewise checked. */
static void give_bytes(struct block_slot *slot, const void *from, uint64_t len)
{
    for (uint64_t done = 0, part; done < len; done += part) {
        part = slot->iov->iov_len < len - done ? slot->iov->iov_len : len - done;
        memcpy(slot->iov->iov_base, (const uint8_t *)from + done, part);
        advance(slot, part);
    }
}

static void select_segments(struct block_slot *slot, uint32_t from, uint32_t count,
                            uint64_t len)
{
    slot->iov = slot->chain.segment + from;
    slot->count = count;
    slot->left = len;
}

/* Cuts the last writable byte off: it is the status. 0 if there is none. What is
 * left ends in a segment that is not empty, so that most reads have one. */
static int take_status(struct block_slot *slot)
{
    struct ring_chain *chain = &slot->chain;
    struct iovec *segments = chain->segment + chain->readable;

    if (!chain->writable_len)
        return 0;
    while (!segments[chain->writable - 1].iov_len)
        chain->writable--;
    struct iovec *last = &segments[chain->writable - 1];
    slot->status = (uint8_t *)last->iov_base + --last->iov_len;
    chain->writable -= !last->iov_len;
    chain->writable_len--;
    return 1;
}

/* Finds the data of a read or write and its place. 0 if they are not possible. */
static int place(const struct block *block, struct block_slot *slot, uint64_t sector)
{
    struct ring_chain *chain = &slot->chain;

    slot->offset = 0;
    if (slot->type == TYPE_IN)
        select_segments(slot, chain->readable, chain->writable, chain->writable_len);
    else if (block->read_only)
        return 0;
    if (slot->left % SECTOR_SIZE || sector > block->capacity ||
        slot->left >> SECTOR_SHIFT > block->capacity - sector)
        return 0;
    slot->offset = slot->begin = sector << SECTOR_SHIFT;
    slot->end = slot->begin + slot->left;
    return 1;
}

static void give_id(const struct block *block, struct block_slot *slot)
{
    struct ring_chain *chain = &slot->chain;

    select_segments(slot, chain->readable, chain->writable, chain->writable_len);
    if (slot->left < sizeof block->id)
        return;
    give_bytes(slot, block->id, sizeof block->id);
    slot->result = STATUS_OK;
}

/* Reads the chain into the slot. 1 if there is work for the file; 0 if the slot's
 * result is final. Every status is IOERR until something else is proven. */
int request_parse(struct block *block, struct block_slot *slot)
{
    struct header header;

    slot->status = NULL;
    slot->result = STATUS_IOERR;
    slot->type = ~0u;
    slot->fd = block->fd;
    slot->begin = slot->end = slot->took_ns = 0;
    slot->dropped = slot->slept = 0;
    ring_mark_written(block->ring, &slot->chain, slot->chain.writable_len);
    select_segments(slot, 0, slot->chain.readable, slot->chain.readable_len);
    if (!take_status(slot) || slot->left < sizeof header)
        return 0;
    take_bytes(slot, &header, sizeof header);
    slot->type = header.type;
    switch (header.type) {
    case TYPE_IN:
    case TYPE_OUT:
        return place(block, slot, header.sector);
    case TYPE_FLUSH:
        if (!block->writeback)
            slot->result = STATUS_OK;
        return block->writeback;
    case TYPE_GET_ID:
        give_id(block, slot);
        return 0;
    default:
        slot->result = STATUS_UNSUPP;
        return 0;
    }
}

/* One system call. One segment is the common case, and a vector costs 0.1 us. */
static ssize_t move(const struct block_slot *slot, int flags)
{
    const struct iovec *iov = slot->iov;
    int count = (int)slot->count;
    off_t at = (off_t)slot->offset;

    if (slot->type == TYPE_OUT)
        return count == 1 ? pwrite(slot->fd, iov->iov_base, iov->iov_len, at)
                          : pwritev(slot->fd, iov, count, at);
    if (count == 1 && !flags)
        return pread(slot->fd, iov->iov_base, iov->iov_len, at);
    return preadv2(slot->fd, iov, count, at, flags);
}

/* Moves what is left; 0, or errno. A file that ends early is EIO. */
int request_transfer(struct block_slot *slot, int flags)
{
    while (slot->left) {
        ssize_t n = move(slot, flags);
        if (n > 0)
            advance(slot, (uint64_t)n);
        else if (n == 0)
            return EIO;
        else if (errno != EINTR)
            return errno;
    }
    return 0;
}

static long sleeps(void)
{
    struct rusage usage;

    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nvcsw;
}

/* A write whose time says nothing unless it slept: on a busy CPU any call may
 * take milliseconds, and a worker would only make that worse. */
int request_transfer_watched(struct block_slot *slot)
{
    long before = sleeps();
    int error = request_transfer(slot, 0);

    slot->slept = sleeps() != before;
    return error;
}

void block_run(struct block_slot *slot)
{
    uint64_t start = pace_clock_ns();
    int failed = slot->type == TYPE_FLUSH  ? fsync(slot->fd)
                 : slot->type == TYPE_OUT ? request_transfer_watched(slot)
                                          : request_transfer(slot, 0);

    slot->took_ns += pace_clock_ns() - start;
    slot->result = failed ? STATUS_IOERR : STATUS_OK;
    __atomic_store_n(&slot->state, BLOCK_DONE, __ATOMIC_RELEASE);
}
