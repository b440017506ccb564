/* The drain without Python: the same ring, requests, file and clock as in
 * drain.py.
 *
 *   drain same FILE ROUNDS    vmmd's own block.c, called from C
 *   drain plain FILE ROUNDS   the least that serves honest requests: no checks,
 *                             no budget, no statistics
 *
 * Prints nanoseconds a request, the median of the rounds. */
#define _GNU_SOURCE
#include "vmmd/virtio/block.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MEMORY = 64 << 20, BLOCK = 4096, BATCH = 85, QUEUE = 256 };
enum { DESC = 0x1000, AVAIL = 0x2000, USED = 0x3000, HEADERS = 0x10000, DATA = 0x100000 };

struct descriptor {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t next;
};

static uint8_t *memory;
static uint64_t blocks, seed = 88172645463325252ull;
static uint16_t posted;

static uint64_t random_block(void)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (seed >> 33) % blocks;
}

static void describe(int i)
{
    struct descriptor *d = (struct descriptor *)(memory + DESC) + 3 * i;

    d[0] = (struct descriptor){HEADERS + 64 * i, 16, 1, (uint16_t)(3 * i + 1)};
    d[1] = (struct descriptor){DATA + (uint64_t)BLOCK * i, BLOCK, 3, (uint16_t)(3 * i + 2)};
    d[2] = (struct descriptor){HEADERS + 64 * i + 16, 1, 2, 0};
}

static void post_batch(void)
{
    uint16_t *avail = (uint16_t *)(memory + AVAIL);

    for (int i = 0; i < BATCH; i++) {
        *(uint64_t *)(memory + HEADERS + 64 * i + 8) = random_block() * (BLOCK / 512);
        avail[2 + posted++ % QUEUE] = (uint16_t)(3 * i);
    }
    __atomic_store_n(&avail[1], posted, __ATOMIC_RELEASE);
}

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* ---- vmmd's drain ---- */

static struct block block;
static struct ring ring;
static struct guest_memory guest;
static struct irq_line irq;

static void set_up(int fd)
{
    guest.count = 1;
    guest.region[0] = (struct gm_region){
        .size = MEMORY, .host = memory, .dirty = calloc(1, MEMORY / 4096 / 8 + 64)};
    ring = (struct ring){.mem = &guest, .desc = DESC, .avail = AVAIL, .used = USED, .size = QUEUE};
    irq = (struct irq_line){.page = calloc(1, 4096), .fd = -1};
    block_reset(&block);
    block.ring = &ring;
    block.irq = &irq;
    block.fd = fd;
    block.kick_fd = block.loop_fd = -1;
    block.capacity = blocks * (BLOCK / 512);
    block.max_requests = block.max_bytes = block.ops_allowed = block.bytes_allowed = ~0ull;
    block.max_ns = 1000000000;
    if (ring_enable(&ring))
        exit(1);
}

/* ---- the least ---- */

static void plain(int fd)
{
    struct descriptor *table = (struct descriptor *)(memory + DESC);
    uint16_t *avail = (uint16_t *)(memory + AVAIL), *used = (uint16_t *)(memory + USED);
    static uint16_t next;

    while (next != __atomic_load_n(&avail[1], __ATOMIC_ACQUIRE)) {
        uint16_t head = avail[2 + next % QUEUE];
        struct descriptor *d = &table[head];
        uint64_t sector = *(uint64_t *)(memory + d->addr + 8);
        ssize_t n = pread(fd, memory + d[1].addr, d[1].len, (off_t)(sector * 512));
        memory[d[2].addr] = n != d[1].len;
        uint32_t *entry = (uint32_t *)(used + 2) + 2 * (next % QUEUE);
        entry[0] = head;
        entry[1] = (uint32_t)n + 1;
        __atomic_store_n(&used[1], ++next, __ATOMIC_RELEASE);
    }
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    struct stat info;

    if (argc != 4)
        return 2;
    int fd = open(argv[2], O_RDONLY), rounds = atoi(argv[3]), same = !strcmp(argv[1], "same");
    double *took = calloc((size_t)rounds, sizeof *took);
    if (fd < 0 || fstat(fd, &info) || rounds < 1)
        return 1;
    blocks = (uint64_t)info.st_size / BLOCK;
    memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return 1;
    memset(memory, 0, MEMORY);
    for (int i = 0; i < BATCH; i++)
        describe(i);
    set_up(fd);
    for (int i = 0; i < rounds; i++) {
        post_batch();
        double start = now_ns();
        if (!same)
            plain(fd);
        else if (block_drain(&block) != BLOCK_EMPTY)
            return 1;
        took[i] = (now_ns() - start) / BATCH;
    }
    qsort(took, (size_t)rounds, sizeof *took, compare);
    printf("%.2f\n", took[rounds / 2]);
    return 0;
}
