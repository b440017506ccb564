#define _GNU_SOURCE
#include "vmmd/virtio/pace.h"

#include <poll.h>
#include <time.h>
#include <unistd.h>

#define SCORE_MOST 16
#define SCORE_MISS 4
#define PROBE_MOST 4096

uint64_t pace_clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

void pace_account(struct pace_latency *latency, uint64_t took_ns)
{
    if (!latency->sum_ns || took_ns < latency->min_ns)
        latency->min_ns = took_ns;
    if (took_ns > latency->max_ns)
        latency->max_ns = took_ns;
    latency->sum_ns += took_ns;
}

int pace_poll(struct ring *ring, uint64_t spin_ns)
{
    uint64_t end = pace_clock_ns() + spin_ns;

    do {
        for (int i = 0; i < 8; i++) {
            if (ring_pending(ring))
                return 1;
            __builtin_ia32_pause();
        }
    } while (pace_clock_ns() < end);
    return 0;
}

int pace_worth_it(struct pace_habit *habit, uint64_t served)
{
    habit->since += (uint32_t)served;
    if (!habit->score && habit->since < habit->probe_after)
        return 0;
    habit->since = 0;
    return 1;
}

void pace_learn(struct pace_habit *habit, int hit)
{
    if (hit) {
        habit->score += habit->score < SCORE_MOST;
        habit->probe_after = PACE_PROBE_FIRST;
    } else if (habit->score) {
        habit->score = habit->score > SCORE_MISS ? habit->score - SCORE_MISS : 0;
    } else if (habit->probe_after < PROBE_MOST) {
        habit->probe_after *= 2;
    }
}

int pace_doze(int kick_fd, int loop_fd, uint64_t doze_ns)
{
    struct pollfd fds[] = {{.fd = kick_fd, .events = POLLIN},
                           {.fd = loop_fd, .events = POLLIN}};
    struct timespec most = {.tv_nsec = (long)doze_ns};
    uint64_t count;
    int ready = ppoll(fds, 2, &most, NULL);

    if (ready < 0 || fds[1].revents)
        return -1;
    return ready && read(kick_fd, &count, sizeof count) == sizeof count;
}
