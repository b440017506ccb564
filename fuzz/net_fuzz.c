// sources: vmmd/memory.c vmmd/virtio/ring.c vmmd/virtio/pace.c vmmd/virtio/net.c vmmd/virtio/net_rx.c
/* libFuzzer target: net.c over hostile rings and hostile frames.
 *
 * The input is a list of steps: a store into guest memory, a chain offered to
 * either queue, a frame from the host, a drain, a delivery, a reset. Guest memory
 * is an allocation of its own, so that AddressSanitizer sees every byte beside it;
 * a socket pair stands for the tap. What must hold after every step: nothing is in
 * flight, and each chain that was popped has been answered once. */
#define _GNU_SOURCE
#include "vmmd/virtio/net.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz/input.h"

enum { SIZE = 0x4000, QUEUE = 16, GPA = 0x10000, QUEUE_BYTES = 0x400 };
enum { DESC = 0x0000, AVAIL = 0x0200, USED = 0x0300, MTU = 3000 };

static int tap[2] = {-1, -1};
static uint8_t *memory;
static struct guest_memory guest;
static struct ring ring[2];
static struct irq_line irq;
static struct net net;
static uint32_t page[1024];
static uint64_t dirty[4];

static void activate(int event_idx)
{
    for (int q = 0; q < 2; q++) {
        uint64_t base = GPA + (uint64_t)q * QUEUE_BYTES;
        ring_reset(&ring[q]);
        ring[q].desc = base + DESC;
        ring[q].avail = base + AVAIL;
        ring[q].used = base + USED;
        ring[q].size = QUEUE;
        ring[q].event_idx = (uint8_t)event_idx;
        if (ring_enable(&ring[q]))
            abort();
    }
    net.rx = &ring[0];
    net.tx = &ring[1];
    net.irq = &irq;
}

/* A descriptor that is mostly right: in memory, of a length that makes sense. */
static void describe(struct input *in)
{
    static const uint32_t lengths[] = {1530, 60, 12, 26, 0, 4096, 1, 0xffffffff};
    uint32_t which = take(in, 1), choice = take(in, 1);
    uint8_t *d = memory + (which >> 7) * QUEUE_BYTES + DESC + 16 * (which % QUEUE);
    uint64_t addr = GPA + take(in, 2) % (SIZE + 16);
    uint32_t len = lengths[choice & 7];
    uint16_t flags = choice >> 3 & 7, next = (uint16_t)(take(in, 1) % (QUEUE + 1));

    put_descriptor(d, addr, len, flags, next);
}

static void offer(struct input *in)
{
    uint32_t what = take(in, 1);
    uint16_t *avail = (uint16_t *)(memory + (what >> 6 & 1) * QUEUE_BYTES + AVAIL);

    avail[2 + avail[1] % QUEUE] = (uint16_t)(what & 0x80 ? what : what % QUEUE);
    avail[1]++;
}

/* A frame in guest memory that looks like one for the metadata service. */
static void address(struct input *in)
{
    uint8_t *frame = memory + take(in, 2) % (SIZE - 64);

    frame[24] = 8;
    frame[25] = take(in, 1) & 1 ? 6 : 0;
    memcpy(frame + 12 + 30, net.detour_ip, 4);
    memcpy(frame + 12 + 38, net.detour_ip, 4);
}

static void receive(struct input *in)
{
    static uint8_t frame[MTU];
    (void)!send(tap[1], frame, 1 + take(in, 2) % MTU, MSG_DONTWAIT);
}

static void empty_the_tap(int end)
{
    static uint8_t frame[NET_MAX_FRAME];
    while (recv(tap[end], frame, sizeof frame, MSG_DONTWAIT) >= 0)
        ;
}

static void deliver(struct input *in)
{
    /* Just as long as it says, so that a read behind it is seen. */
    uint32_t len = take(in, 2) % MTU;
    uint8_t *frame = calloc(1, len + 1);
    net_deliver(&net, frame, len);
    free(frame);
}

static void take_detoured(struct input *in)
{
    uint32_t size = take(in, 1) & 1 ? NET_MAX_FRAME : 60;
    uint8_t *frame = malloc(size);
    if (net_take_detoured(&net, frame, size) > size)
        abort();
    free(frame);
}

static void check(void)
{
    for (int q = 0; q < 2; q++) {
        for (int i = 0; i < 4; i++)
            if (ring[q].in_flight[i])
                abort();
        if (ring[q].stale || ring[q].next_used != ring[q].next_avail)
            abort();
    }
    if (net.pool.room || net.pool.first != net.pool.last)
        abort();
}

static void step(struct input *in)
{
    switch (take(in, 1) % 13) {
    case 0:
    case 1:
        describe(in);
        break;
    case 2:
        address(in);
        break;
    case 3:
    case 4:
        offer(in);
        break;
    case 5:
        net_drain_tx(&net);
        break;
    case 6:
        net_drain_rx(&net);
        break;
    case 7:
        receive(in);
        break;
    case 8:
        empty_the_tap(1);
        break;
    case 9:
        memory[take(in, 2) % SIZE] = (uint8_t)take(in, 1);
        break;
    case 10:
        deliver(in);
        break;
    case 11:
        take_detoured(in);
        break;
    default:
        net_reset(&net);
        activate((int)take(in, 1) & 1);
    }
}

static void fresh(struct input *in)
{
    uint32_t mode = take(in, 1);

    if (tap[0] < 0 && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, tap))
        abort();
    empty_the_tap(0);
    empty_the_tap(1);
    memory = aligned_alloc(4096, SIZE);
    memset(memory, 0, SIZE);
    guest = (struct guest_memory){.count = 1};
    guest.region[0] = (struct gm_region){GPA, SIZE, memory, dirty};
    memset(ring, 0, sizeof ring);
    memset(&net, 0, sizeof net);
    ring[0].mem = ring[1].mem = &guest;
    irq = (struct irq_line){.page = (uint8_t *)page, .fd = -1};
    net_reset(&net);
    net.tap_fd = mode & 1 && mode & 2 ? -1 : tap[0];
    net.mergeable = mode >> 2 & 1;
    net.rx_room = mode & 8 ? NET_MAX_FRAME : 1530;
    net.check_mac = mode >> 4 & 1;
    net.detour = mode >> 5 & 1;
    memcpy(net.detour_ip, (uint8_t[]){169, 254, 169, 254}, 4);
    net.max_requests = mode & 64 ? 3 : ~0ull;
    net.max_bytes = ~0ull;
    net.max_ns = 1000000000;
    net.rx_limit.ops_allowed = net.rx_limit.bytes_allowed = ~0ull;
    net.tx_limit.ops_allowed = net.tx_limit.bytes_allowed = mode & 2 ? 200 : ~0ull;
    net.spin_ns = 1;
    activate(mode >> 7);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};

    fresh(&in);
    while (in.left) {
        step(&in);
        check();
    }
    free(memory);
    return 0;
}
