#ifndef VMMD_LOOP_VCPU_H
#define VMMD_LOOP_VCPU_H
#include <stdint.h>

/* vCPU threads: KVM_RUN in a pthread each, no device, no GIL, nothing owned.
 *
 * The loop owns every page, descriptor and struct named here and keeps them
 * until all threads are joined. A thread answers an exit by itself where a
 * window's rule says how; else it fills its mailbox and sleeps until the loop
 * has answered. */

// cffi>
#define VCPU_MAX 32
#define VCPU_MAX_WINDOWS 64
#define VCPU_MAX_RULES 32
#define VCPU_NOTES 16
#define VCPU_REASONS 40

/* One line of a window's table: accesses of `size` bytes that lie in
 * [offset, end). `access`, `target` and `mask` as in vmmd/bus.py. */
struct vcpu_rule {
    uint16_t offset;
    uint16_t end;
    uint16_t target;
    uint8_t size;
    uint8_t write;
    uint32_t access;
    uint32_t reserved;
    uint64_t mask;
};

struct vcpu_rules {
    uint32_t count;
    uint32_t reserved;
    struct vcpu_rule rule[32];
};

/* `rules` is replaced as a whole, by vcpu_set_rules; a table that was ever
 * here stays in memory, since a thread may still be reading it. */
struct vcpu_window {
    uint64_t base;
    uint64_t length;
    uint8_t *page;
    const struct vcpu_rules *rules;
    uint32_t id;
    uint32_t space;
};

/* A posted write. `sequence` is its ticket plus one once it is published. */
struct vcpu_posted {
    uint64_t sequence;
    uint64_t value;
    uint32_t window;
    uint16_t offset;
    uint16_t size;
};

enum vcpu_mail { VCPU_EMPTY = 0, VCPU_ASKED = 1, VCPU_ANSWERED = 2, VCPU_CLOSED = 4 };

/* A synchronous exit: `count` items of `size` bytes at `data` in the run page.
 * The loop answers it once it has consumed the posted ring up to `horizon`. */
struct vcpu_mailbox {
    uint32_t word;
    uint32_t space;
    uint64_t address;
    uint8_t *data;
    uint64_t horizon;
    uint32_t size;
    uint32_t count;
    uint32_t write;
    uint32_t reserved;
};

/* An exit as it was, for the death report. */
struct vcpu_note {
    uint64_t address;
    uint64_t value;
    uint32_t count;
    uint16_t reason;
    uint8_t size;
    uint8_t write;
};

/* Written by the vCPU's thread alone. */
struct vcpu_counters {
    uint64_t exits[40];
    uint64_t entered;
    uint64_t shadow;
    uint64_t posted;
    uint64_t stored;
    uint64_t cleared;
    uint64_t asked;
    uint64_t full;
    uint64_t woken;
    uint64_t interrupted;
    uint64_t again;
    uint64_t accesses[4]; /* ports read and written, memory read and written */
};

enum vcpu_command { VCPU_RUN = 0, VCPU_PAUSE = 1, VCPU_STOP = 2 };

/* Where a test may hold a thread: see vcpu_stall. */
enum vcpu_stall_point {
    VCPU_NO_STALL = 0,
    VCPU_STALL_CLEARED = 1,
    VCPU_STALL_ENTERING = 2,
    VCPU_STALL_PUBLISHING = 3
};

struct vcpu {
    struct vcpu_threads *all;
    void *run;
    int32_t fd;
    uint32_t index;
    uint64_t thread;
    /* The loop's word: a generation in the upper 30 bits, below it a
     * vcpu_command. `parked` is the word that the thread parked for. */
    uint32_t command;
    uint32_t parked;
    uint32_t dead;
    int32_t run_errno;
    uint64_t end_horizon;
    uint32_t stall;
    uint32_t stalled;
    uint32_t note_count;
    uint32_t reserved;
    struct vcpu_mailbox mail;
    struct vcpu_counters counters;
    struct vcpu_note note[16];
};

/* One per VM. The posted ring has `mask` + 1 slots, a power of two; `tail` is
 * the next ticket, `head` the next to consume, `awaited` the one whose
 * publisher has to wake the loop. work_fd: something to drain or to answer;
 * state_fd: a thread has parked or died. */
struct vcpu_threads {
    uint64_t tail;
    uint64_t apart_1[7];
    uint64_t head;
    uint64_t apart_2[7];
    uint64_t awaited;
    uint64_t apart_3[7];
    struct vcpu_posted *slot;
    uint64_t mask;
    int32_t work_fd;
    int32_t state_fd;
    uint32_t count;
    uint32_t window_count[2];
    uint32_t reserved;
    struct vcpu_window window[2][64];
    struct vcpu *vcpu[32];
};

/* KVM_SET_TSS_ADDR, whose argument is a long above what fcntl.ioctl takes. 0, or
 * an errno. */
int kvm_set_tss_addr(int vm_fd, uint64_t address);

/* Installs the kick's handler (SIGRTMIN, no SA_RESTART) and blocks SIGRTMIN in
 * the calling thread. Once per process is enough. 0, or an errno. */
int vcpu_install(void);

/* Adds a window; the threads may be running. 0, or -1 if the table is full. */
int vcpu_add_window(struct vcpu_threads *all, const struct vcpu_window *window);
void vcpu_set_rules(struct vcpu_threads *all, uint32_t id,
                    const struct vcpu_rules *rules);

/* Starts the thread, parked, named `fc_vcpu N`. 0, or an errno. */
int vcpu_start(struct vcpu *vcpu);
/* Gives a command and makes the thread look. */
void vcpu_command(struct vcpu *vcpu, enum vcpu_command command);
/* 1 if the thread has parked for the last command, or is dead. */
int vcpu_is_parked(const struct vcpu *vcpu);
int vcpu_is_dead(const struct vcpu *vcpu);
/* Joins a thread that is dead: returns at once. 0, or an errno. */
int vcpu_join(struct vcpu *vcpu);

/* Takes up to `room` published writes in ticket order; how many. */
uint32_t vcpu_take_posted(struct vcpu_threads *all, struct vcpu_posted *out,
                          uint32_t room);
/* 1 if every ticket that was taken has been consumed. */
int vcpu_posted_empty(const struct vcpu_threads *all);
/* The first vCPU from index `from` on that waits for an answer and whose
 * horizon has been consumed; `count` if there is none. */
uint32_t vcpu_next_asked(const struct vcpu_threads *all, uint32_t from);
/* Wakes it. 0 if it was stopped meanwhile: the answer is dropped. */
int vcpu_answer(struct vcpu *vcpu);
/* Before the loop sleeps: asks for a wake at the next posted write, fences and
 * looks once more. 1 if it may sleep, 0 if there is something to do. */
int vcpu_arm(struct vcpu_threads *all);

/* Tests: holds the thread at `point` the next time it comes by. It is there
 * once `stalled` says so; VCPU_NO_STALL lets it go on. */
void vcpu_stall(struct vcpu *vcpu, enum vcpu_stall_point point);
// <cffi
#endif
