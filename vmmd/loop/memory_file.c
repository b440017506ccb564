#define _GNU_SOURCE
#include "vmmd/loop/memory_file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vmmd/state/crc32c.h"

#define PAGE 4096ull
#define BLOCK_PAGES (MEMFILE_BLOCK / PAGE)
#define PART_PAGES 64
#define SYNC_BLOCKS 8

/* -- Bitmaps */

static int has(const uint64_t *bits, uint64_t page)
{
    return bits && bits[page >> 6] >> (page & 63) & 1;
}

static void set_range(uint64_t *bits, uint64_t from, uint64_t to)
{
    for (; from < to; from++)
        bits[from >> 6] |= 1ull << (from & 63);
}

/* The first page from `page` on whose bit is `set`; `end` if there is none. */
static uint64_t next_page(const uint64_t *bits, uint64_t page, uint64_t end, int set)
{
    while (page < end) {
        uint64_t word = (set ? bits[page >> 6] : ~bits[page >> 6]) >> (page & 63);
        if (word) {
            page += (uint64_t)__builtin_ctzll(word);
            break;
        }
        page = (page | 63) + 1;
    }
    return page < end ? page : end;
}

static uint64_t block_end(const struct memfile_pass *pass, uint32_t block)
{
    uint64_t end = (block + 1ull) * BLOCK_PAGES;
    return end < pass->pages ? end : pass->pages;
}

/* -- Files, whole ranges at a time */

static int transfer(int fd, int out, const void *data, uint64_t length, uint64_t offset)
{
    uint8_t *at = (uint8_t *)data;
    while (length) {
        ssize_t count = out ? pwrite(fd, at, length, (off_t)offset)
                            : pread(fd, at, length, (off_t)offset);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return count ? -errno : -EIO;
        at += count, offset += (uint64_t)count, length -= (uint64_t)count;
    }
    return 0;
}

int memfile_copy(int from, int to, uint64_t offset, uint64_t length)
{
    uint8_t buffer[65536];
    while (length) {
        off_t in = (off_t)offset, out = in;
        ssize_t count = copy_file_range(from, &in, to, &out, length, 0);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0) {
            /* Not between these file systems, or nothing left to read: the
             * plain calls can do the one and name the other. */
            count = (ssize_t)(length < sizeof buffer ? length : sizeof buffer);
            int error = transfer(from, 0, buffer, (uint64_t)count, offset);
            if (!error)
                error = transfer(to, 1, buffer, (uint64_t)count, offset);
            if (error)
                return error;
        }
        offset += (uint64_t)count, length -= (uint64_t)count;
    }
    return 0;
}

int memfile_extents(int fd, uint64_t pages, uint64_t *bitmap)
{
    off_t end = (off_t)(pages * PAGE), at = 0;
    while (at < end) {
        off_t data = lseek(fd, at, SEEK_DATA);
        if (data < 0)
            return errno == ENXIO ? 0 : -errno;
        at = lseek(fd, data, SEEK_HOLE);
        if (at < 0)
            return -errno;
        uint64_t past = ((uint64_t)at + PAGE - 1) / PAGE;
        set_range(bitmap, (uint64_t)data / PAGE, past < pages ? past : pages);
    }
    return 0;
}

/* -- Check */

static uint8_t *host_at(const struct guest_memory *memory, uint64_t offset, uint64_t *room)
{
    for (uint32_t i = 0; i < memory->count; i++) {
        const struct gm_region *region = &memory->region[i];
        if (offset < region->size) {
            *room = region->size - offset;
            return region->host + offset;
        }
        offset -= region->size;
    }
    return NULL;
}

static int is_zero(const uint8_t *page)
{
    uint64_t first;
    memcpy(&first, page, sizeof first);
    return !first && !memcmp(page, page + sizeof first, PAGE - sizeof first);
}

static int read_kept(struct memfile_pass *pass, uint64_t first, uint64_t end,
                     uint8_t *buffer)
{
    uint64_t at = first, to;
    int error = 0;
    for (; !error && (at = next_page(pass->keep, at, end, 1)) < end; at = to) {
        to = next_page(pass->keep, at, end, 0);
        uint8_t *there = buffer + (at - first) * PAGE;
        error = transfer(pass->base_fd, 0, there, (to - at) * PAGE, at * PAGE);
    }
    return error;
}

/* The processor's own prefetchers stop at each page's end: half the time. */
static void prefetch(const struct memfile_pass *pass, uint64_t page)
{
    uint64_t room, end = block_end(pass, (uint32_t)(page / BLOCK_PAGES) + 1);
    const uint8_t *at = NULL;
    page = next_page(pass->take, page, end, 1);
    if (page < end)
        at = host_at(pass->memory, page * PAGE, &room);
    for (uint64_t i = 0; at && i < PAGE; i += 64)
        __builtin_prefetch(at + i);
}

static uint64_t next_data(const struct memfile_pass *pass, uint64_t page, uint64_t end)
{
    end = next_page(pass->take, page, end, 1);
    return pass->keep ? next_page(pass->keep, page, end, 1) : end;
}

static int check_pages(struct memfile_pass *pass, uint64_t page, uint64_t end,
                       const uint8_t *kept, uint32_t *checksum)
{
    uint64_t room;
    for (; (page = next_data(pass, page, end)) < end; page++) {
        const uint8_t *at;
        if (has(pass->keep, page)) {
            at = kept + page % BLOCK_PAGES * PAGE;
        } else {
            at = host_at(pass->memory, page * PAGE, &room);
            if (!at)
                return -EFAULT;
            prefetch(pass, page + 1);
            if (pass->skip_zero && is_zero(at)) {
                /* Atomic: a block may be checked by both threads at once. */
                __atomic_fetch_and(&pass->take[page >> 6], ~(1ull << (page & 63)),
                                   __ATOMIC_RELAXED);
                continue;
            }
        }
        *checksum = crc32c(*checksum, at, PAGE);
    }
    return 0;
}

static int write_pages(struct memfile_pass *pass, uint64_t first, uint64_t end)
{
    uint64_t at = first, to, room = 0;
    int error = 0;
    for (; !error && (at = next_page(pass->take, at, end, 1)) < end; at = to) {
        const uint8_t *from = host_at(pass->memory, at * PAGE, &room);
        to = next_page(pass->take, at, end, 0);
        if (to - at > room / PAGE)
            to = at + room / PAGE;
        error = from ? transfer(pass->out_fd, 1, from, (to - at) * PAGE, at * PAGE) : -EFAULT;
    }
    if (!pass->keep || !pass->copy_base)
        return error;
    for (at = first; !error && (at = next_page(pass->keep, at, end, 1)) < end; at = to) {
        to = next_page(pass->keep, at, end, 0);
        error = memfile_copy(pass->base_fd, pass->out_fd, at * PAGE, (to - at) * PAGE);
    }
    return error;
}

/* -- Blocks */

/* Checks a block if that is wanted, with `write` writes it, both part by part while
 * that is in the cache. Twice comes to the same. 0 if there was an error. */
static int do_block(struct memfile_pass *pass, uint32_t block, uint8_t *kept, int check,
                    int write)
{
    uint64_t first = block * BLOCK_PAGES, end = block_end(pass, block), to;
    uint32_t checksum = 0;
    int unread = 0, wrong = 0;
    check = check && !(pass->known && pass->known[block]);
    if (check && pass->keep)
        unread = read_kept(pass, first, end, kept);
    for (uint64_t at = first; at < end && !unread && !wrong; at = to) {
        to = end - at < PART_PAGES ? end : at + PART_PAGES;
        if (check)
            unread = check_pages(pass, at, to, kept, &checksum);
        if (!unread && write)
            wrong = write_pages(pass, at, to);
    }
    if (check)
        pass->checksums[block] = checksum;
    if (unread)
        pass->read_error = unread;
    if (wrong)
        pass->write_error = wrong;
    return !unread && !wrong;
}

void memfile_stop(struct memfile_pass *pass)
{
    __atomic_store_n(&pass->stopped, 1, __ATOMIC_RELAXED);
}

static int is_stopped(struct memfile_pass *pass)
{
    return __atomic_load_n(&pass->stopped, __ATOMIC_RELAXED);
}

/* Lets the disk begin before fsync, which is what tells of errors. */
static void begin_sync(struct memfile_pass *pass, uint32_t block)
{
    if (pass->out_fd >= 0 && block % SYNC_BLOCKS == SYNC_BLOCKS - 1)
        sync_file_range(pass->out_fd, (block + 1ll - SYNC_BLOCKS) * MEMFILE_BLOCK,
                        SYNC_BLOCKS * MEMFILE_BLOCK, SYNC_FILE_RANGE_WRITE);
}

void memfile_work(struct memfile_pass *pass)
{
    uint64_t blocks = (pass->pages + BLOCK_PAGES - 1) / BLOCK_PAGES;
    for (uint32_t block = 0; block < blocks && !is_stopped(pass); block++) {
        int checked = __atomic_load_n(&pass->checked[block], __ATOMIC_ACQUIRE);
        __atomic_store_n(&pass->begun, block + 1, __ATOMIC_RELAXED);
        if (!do_block(pass, block, pass->kept[0], !checked, pass->out_fd >= 0))
            memfile_stop(pass);
        begin_sync(pass, block);
    }
}

/* From the end: the two meet once, and neither ever waits for the other, who may
 * not have a processor. */
static void *help(void *argument)
{
    struct memfile_pass *pass = argument;
    uint32_t block = (uint32_t)((pass->pages + BLOCK_PAGES - 1) / BLOCK_PAGES);
    pthread_setname_np(pthread_self(), "memory_check");
    while (block-- > __atomic_load_n(&pass->begun, __ATOMIC_RELAXED) && !is_stopped(pass)) {
        if (!do_block(pass, block, pass->kept[1], 1, 0))
            memfile_stop(pass);
        __atomic_store_n(&pass->checked[block], 1, __ATOMIC_RELEASE);
    }
    eventfd_write(pass->end_fd, 1);
    return NULL;
}

static void *work(void *argument)
{
    struct memfile_pass *pass = argument;
    pthread_setname_np(pthread_self(), "memory_file");
    memfile_work(pass);
    eventfd_write(pass->end_fd, 1);
    return NULL;
}

int memfile_start(struct memfile_pass *pass, uint32_t threads)
{
    sigset_t all, before;
    int error = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the loop's */
    while (!error && pass->threads < threads) {
        pthread_t thread;
        error = pthread_create(&thread, NULL, pass->threads ? help : work, pass);
        if (!error)
            pass->thread[pass->threads++] = (uint64_t)thread;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pass->threads ? 0 : -error;
}

void memfile_join(struct memfile_pass *pass)
{
    while (pass->threads)
        pthread_join((pthread_t)pass->thread[--pass->threads], NULL);
}

/* -- Which pages were written: never by reading them, which maps them */

struct scan_range {
    uint64_t start, end, categories;
};

/* struct pm_scan_arg of linux/fs.h (6.7), which older headers lack. */
struct scan_arg {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t inverted, mask, anyof, returned;
};

enum { IS_FILE = 1 << 2, IS_PRESENT = 1 << 3, IS_SWAPPED = 1 << 4, IS_ZERO = 1 << 5 };
#define PAGEMAP_SCAN_CALL _IOWR('f', 16, struct scan_arg)

static int scan_pages(int fd, uint64_t host, uint64_t size, uint32_t private_file,
                      uint64_t *bitmap, uint64_t first)
{
    struct scan_range ranges[256];
    uint64_t without = IS_ZERO | (private_file ? IS_FILE : 0);
    struct scan_arg arg = {
        .size = sizeof arg, .start = host, .end = host + size, .vec = (uintptr_t)ranges,
        .vec_len = 256, .inverted = without, .mask = without,
        .anyof = IS_PRESENT | IS_SWAPPED, .returned = IS_PRESENT,
    };
    while (arg.start < host + size) {
        int count = ioctl(fd, PAGEMAP_SCAN_CALL, &arg);
        if (count < 0)
            return -errno;
        /* A scan that goes on repeats ranges: bits do not mind. */
        for (int i = 0; i < count; i++)
            set_range(bitmap, first + (ranges[i].start - host) / PAGE,
                      first + (ranges[i].end - host) / PAGE);
        if (arg.walk_end <= arg.start)
            return -EIO;
        arg.start = arg.walk_end;
    }
    return 0;
}

static int read_pagemap(int fd, uint64_t host, uint64_t size, uint32_t private_file,
                        uint64_t *bitmap, uint64_t first)
{
    const uint64_t present = 3ull << 62, file = 1ull << 61;
    uint64_t entries[512];
    for (uint64_t page = 0; page < size / PAGE;) {
        uint64_t count = size / PAGE - page;
        if (count > 512)
            count = 512;
        int error = transfer(fd, 0, entries, count * sizeof *entries,
                             (host / PAGE + page) * sizeof *entries);
        if (error)
            return error;
        for (uint64_t i = 0; i < count; i++, page++)
            if (entries[i] & present && !(private_file && entries[i] & file))
                set_range(bitmap, first + page, first + page + 1);
    }
    return 0;
}

int memfile_present(int pagemap_fd, const void *host, uint64_t size,
                    uint32_t private_file, uint32_t scan, uint64_t *bitmap,
                    uint64_t first)
{
    uint64_t at = (uintptr_t)host;
    if (scan && !scan_pages(pagemap_fd, at, size, private_file, bitmap, first))
        return 0;
    return read_pagemap(pagemap_fd, at, size, private_file, bitmap, first);
}
