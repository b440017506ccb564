/* Sending without Python and without care: the same ring and frames as in net.py.
 *
 *   net ROUNDS    pops, writes to a tap of its own, pushes; no checks, no budget
 *
 * Prints nanoseconds a frame, the median of the rounds. Needs root. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { QUEUE = 256, FRAME = 76, STRIDE = 4096, HEADER = 12 };

static struct {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
} descriptors[QUEUE];
static uint16_t available[2 + QUEUE], used_index;
static struct {
    uint32_t id, len;
} used[QUEUE];
static uint8_t buffers[QUEUE * STRIDE];

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static int open_tap(void)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int header = HEADER, fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    int any = socket(AF_INET, SOCK_DGRAM, 0);

    strcpy(request.ifr_name, "bench0");
    if (ioctl(fd, TUNSETIFF, &request) || ioctl(fd, TUNSETVNETHDRSZ, &header))
        return -1;
    request.ifr_flags = IFF_UP;
    return ioctl(any, SIOCSIFFLAGS, &request) ? -1 : fd;
}

static void send_batch(int fd, uint16_t *next)
{
    while (*next != __atomic_load_n(&available[1], __ATOMIC_ACQUIRE)) {
        uint16_t head = available[2 + (*next)++ % QUEUE];
        if (write(fd, (void *)(uintptr_t)descriptors[head].addr, FRAME) < 0)
            exit(1);
        used[used_index % QUEUE].id = head;
        used[used_index % QUEUE].len = 0;
        __atomic_store_n(&used_index, used_index + 1, __ATOMIC_RELEASE);
    }
}

int main(int argc, char **argv)
{
    int rounds = argc == 2 ? atoi(argv[1]) : 0;
    double *took = calloc((size_t)rounds + 1, sizeof *took);
    uint16_t next = 0;

    int fd = rounds && !unshare(CLONE_NEWNET) ? open_tap() : -1;
    if (fd < 0) {
        perror("net");
        return 1;
    }
    for (int i = 0; i < QUEUE; i++) {
        uint8_t *frame = buffers + i * STRIDE;
        memset(frame + HEADER, 2, 12);
        frame[HEADER + 12] = 0x88;
        frame[HEADER + 13] = 0xb5;
        descriptors[i].addr = (uintptr_t)frame;
        available[2 + i] = (uint16_t)i;
    }
    for (int round = 0; round < rounds; round++) {
        available[1] += QUEUE;
        double start = now_ns();
        send_batch(fd, &next);
        took[round] = (now_ns() - start) / QUEUE;
    }
    qsort(took, (size_t)rounds, sizeof *took, ascending);
    printf("%.1f\n", took[rounds / 2]);
    return 0;
}
