#ifndef VMMD_VIRTIO_PACE_H
#define VMMD_VIRTIO_PACE_H
#include <stdint.h>

#include "vmmd/virtio/ring.h"

/* Whether waiting for a queue's next chain pays, learned from whether it did,
 * and the two ways to wait. The device says when; nothing here knows it. */

// cffi>
struct pace_latency {
    uint64_t min_ns;
    uint64_t max_ns;
    uint64_t sum_ns;
};

/* Whether it has paid to wait for a driver in some way: `score` grows by one for
 * a hit and shrinks by four for a miss. At zero only a probe waits, after
 * `probe_after` requests, which doubles for each probe that misses. */
struct pace_habit {
    uint32_t score;
    uint32_t probe_after;
    uint32_t since;
};
// <cffi

/* A habit begins, and after a hit begins again, by probing this soon. */
#define PACE_PROBE_FIRST 64

uint64_t pace_clock_ns(void);

/* One more that took so long: its least, most and sum. */
void pace_account(struct pace_latency *latency, uint64_t took_ns);

/* Whether to wait now, after `served` requests. */
int pace_worth_it(struct pace_habit *habit, uint64_t served);
void pace_learn(struct pace_habit *habit, int hit);

/* Looks at the ring for `spin_ns`; 1 if a chain came. */
int pace_poll(struct ring *ring, uint64_t spin_ns);

/* Sleeps until a kick, for at most `doze_ns`: 1 if one came (it is taken), 0 if
 * not, -1 if other work of the loop ended it, which says nothing. */
int pace_doze(int kick_fd, int loop_fd, uint64_t doze_ns);
#endif
