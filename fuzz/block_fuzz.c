// sources: vmmd/memory.c vmmd/virtio/ring.c vmmd/virtio/pace.c vmmd/virtio/block_request.c vmmd/virtio/block.c
/* libFuzzer target: block.c over a hostile ring and hostile requests.
 *
 * The input is a list of steps: a store into guest memory, a chain offered, a
 * drain, the end of a worker, a reset. Guest memory is an allocation of its own,
 * so that AddressSanitizer sees every byte beside it. What must hold at rest:
 * each chain that was popped has been answered once, and nothing is in flight. */
#define _GNU_SOURCE
#include "vmmd/virtio/block.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz/input.h"

enum { SIZE = 0x4000, DESC = 0x0000, AVAIL = 0x0200, USED = 0x0300, HEADERS = 0x1000 };
enum { QUEUE = 16, SECTORS = 16, GPA = 0x10000 };

static int disk = -1;
static uint8_t *memory;
static struct guest_memory guest;
static struct ring ring;
static struct irq_line irq;
static struct block block;
static uint32_t page[1024];
static uint64_t dirty[4];

static void activate(int event_idx)
{
    ring_reset(&ring);
    ring.desc = GPA + DESC;
    ring.avail = GPA + AVAIL;
    ring.used = GPA + USED;
    ring.size = QUEUE;
    ring.event_idx = (uint8_t)event_idx;
    if (ring_enable(&ring))
        abort();
    block.ring = &ring;
    block.irq = &irq;
}

/* A descriptor that is mostly right: in memory, of a length that makes sense. */
static void describe(struct input *in)
{
    static const uint32_t lengths[] = {16, 512, 1, 1024, 20, 0, 513, 0xffffffff};
    uint8_t *d = memory + DESC + 16 * (take(in, 1) % QUEUE);
    uint32_t choice = take(in, 1);
    uint64_t addr = GPA + take(in, 2) % (SIZE + 16);
    uint32_t len = lengths[choice & 7];
    uint16_t flags = choice >> 3 & 7, next = (uint16_t)(take(in, 1) % (QUEUE + 1));

    put_descriptor(d, addr, len, flags, next);
}

static void head_request(struct input *in)
{
    static const uint32_t types[] = {0, 1, 4, 8, 0, 1, 9, 2};
    uint8_t *h = memory + HEADERS + 64 * (take(in, 1) % 32);
    uint64_t sector = take(in, 1);

    if (sector == 255)
        sector = ~0ull - take(in, 1);
    memcpy(h, &types[take(in, 1) & 7], 4);
    memcpy(h + 8, &sector, 8);
}

static void offer(struct input *in)
{
    uint16_t *avail = (uint16_t *)(memory + AVAIL);
    uint16_t head = (uint16_t)take(in, 1);

    avail[2 + avail[1] % QUEUE] = head & 0x80 ? head : head % QUEUE;
    avail[1]++;
}

static void end_worker(struct input *in, int *running, int *count)
{
    int slot;

    while ((slot = block_take(&block)) >= 0)
        running[(*count)++] = slot;
    if (!*count)
        return;
    int which = (int)(take(in, 1) % (uint32_t)*count);
    block_run(&block.slot[running[which]]);
    running[which] = running[--*count];
}

static void rest(struct input *in, int *running, int *count)
{
    enum block_stop stop;

    for (int turns = 0;; turns++) {
        if (turns > 100000)
            abort();
        stop = block_drain(&block);
        do
            end_worker(in, running, count);
        while (*count);
        if (!block.live && (stop == BLOCK_EMPTY || stop == BLOCK_BROKEN))
            break;
        block.ops_allowed = block.bytes_allowed = block.max_requests = ~0ull;
    }
    for (int i = 0; i < 4; i++)
        if (ring.in_flight[i])
            abort();
    if (ring.stale || ring.next_used != ring.next_avail)
        abort();
}

static void step(struct input *in, int *running, int *count)
{
    switch (take(in, 1) % 10) {
    case 0:
    case 1:
        describe(in);
        break;
    case 2:
        head_request(in);
        break;
    case 3:
    case 4:
        offer(in);
        break;
    case 5:
        block_drain(&block);
        break;
    case 6:
        end_worker(in, running, count);
        break;
    case 7:
        block_collect(&block);
        break;
    case 8:
        memory[take(in, 2) % SIZE] = (uint8_t)take(in, 1);
        break;
    default:
        /* A reset with requests in workers: they end after it, unanswered. */
        block_reset(&block);
        activate((int)take(in, 1) & 1);
    }
}

static void fresh(struct input *in)
{
    uint32_t mode = take(in, 1);

    if (disk < 0)
        disk = memfd_create("disk", MFD_CLOEXEC);
    if (disk < 0 || ftruncate(disk, mode & 64 ? 512 : SECTORS * 512))
        abort();
    memory = aligned_alloc(4096, SIZE);
    memset(memory, 0, SIZE);
    guest = (struct guest_memory){.count = 1};
    guest.region[0] = (struct gm_region){GPA, SIZE, memory, dirty};
    memset(&ring, 0, sizeof ring);
    memset(&block, 0, sizeof block);
    ring.mem = &guest;
    irq = (struct irq_line){.page = (uint8_t *)page, .fd = -1};
    block_reset(&block);
    block.fd = disk;
    block.capacity = SECTORS;
    block.read_only = mode & 1;
    block.writeback = mode >> 1 & 1;
    block.nowait = mode >> 2 & 1;
    block.slow_until_ns = mode & 8 ? ~0ull : 0;
    block.max_requests = mode & 16 ? 2 : ~0ull;
    block.ops_allowed = block.bytes_allowed = mode & 32 ? 600 : ~0ull;
    block.max_bytes = ~0ull;
    block.max_ns = 1000000000;
    block.kick_fd = block.loop_fd = -1;
    block.spin_ns = 1;
    activate(mode >> 7);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    int running[BLOCK_SLOTS], count = 0;

    fresh(&in);
    while (in.left)
        step(&in, running, &count);
    rest(&in, running, &count);
    free(memory);
    return 0;
}
