#ifndef VMMD_LOOP_VCPU_PARTS_H
#define VMMD_LOOP_VCPU_PARTS_H
#include "vmmd/loop/vcpu.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What the parts of the vCPU threads say to each other: the posted ring and the
 * mailbox (posted.c), the windows (window.c), the threads (vcpu.c). */

/* Appends a write to the posted ring; 0 if it is full. */
int posted_put(struct vcpu *v, const struct vcpu_window *w, uint32_t offset,
               uint32_t size, uint64_t value);

/* Asks the loop and sleeps until it answers. 0 if the vCPU is to stop. */
int mailbox_ask(struct vcpu *v);

const struct vcpu_window *window_find(const struct vcpu_threads *all, uint32_t space,
                                      uint64_t address);

/* Serves one item by its window's rule; 0 if only the loop can. */
int window_serve(struct vcpu *v, const struct vcpu_window *w, uint64_t offset,
                 uint8_t *data, uint32_t size, uint32_t write);

static inline void futex_wait(const uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static inline void futex_wake(const uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static inline void signal_fd(int fd)
{
    uint64_t one = 1;
    /* A counter that is full is readable, which is all we want. */
    ssize_t ignored = write(fd, &one, sizeof(one));
    (void)ignored;
}

static inline void stall_at(struct vcpu *v, uint32_t point)
{
    if (__builtin_expect(__atomic_load_n(&v->stall, __ATOMIC_RELAXED) != point, 1))
        return;
    __atomic_store_n(&v->stalled, point, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&v->stall, __ATOMIC_SEQ_CST) == point)
        futex_wait(&v->stall, point);
    __atomic_store_n(&v->stalled, VCPU_NO_STALL, __ATOMIC_SEQ_CST);
}
#endif
