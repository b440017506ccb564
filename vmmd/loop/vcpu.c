#define _GNU_SOURCE
#include "vmmd/loop/vcpu_parts.h"

#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define STACK_BYTES (256 * 1024)
#define COMMAND_BITS 2
#define COMMAND_MASK 3u

/* The handler's whole world. initial-exec: a lazily allocated thread-local
 * would call malloc inside the handler. */
static _Thread_local __attribute__((tls_model("initial-exec")))
struct kvm_run *running;

/* Serves the access in the mailbox: as many items as the rules allow, then the
 * loop gets the rest of the run in one go. 0 if the vCPU is to stop. */
static int serve_access(struct vcpu *v)
{
    struct vcpu_mailbox *m = &v->mail;
    const struct vcpu_window *w = window_find(v->all, m->space, m->address);
    while (w && m->count &&
           window_serve(v, w, m->address - w->base, m->data, m->size, m->write)) {
        m->data += m->size;
        m->count--;
    }
    return m->count == 0 || mailbox_ask(v);
}

static void note(struct vcpu *v, uint32_t reason, const struct vcpu_mailbox *m)
{
    uint32_t count = v->note_count;
    struct vcpu_note *n = &v->note[count % VCPU_NOTES];
    *n = (struct vcpu_note){.reason = (uint16_t)reason};
    if (m) {
        n->address = m->address;
        n->count = m->count;
        n->size = (uint8_t)m->size;
        n->write = (uint8_t)m->write;
        memcpy(&n->value, m->data, m->size > 8 ? 8 : m->size);
    }
    __atomic_store_n(&v->note_count, count + 1, __ATOMIC_RELEASE);
}

/* Serves the exit in the run page. 0 ends the thread: a stop, or an exit that
 * ends the VM, which is then read from the run page. */
static int serve_exit(struct vcpu *v)
{
    struct kvm_run *run = v->run;
    struct vcpu_mailbox *m = &v->mail;
    uint32_t reason = run->exit_reason;
    v->counters.exits[reason < VCPU_REASONS ? reason : VCPU_REASONS - 1]++;
    switch (reason) {
    case KVM_EXIT_IO:
        m->space = 0;
        m->address = run->io.port;
        m->data = (uint8_t *)run + run->io.data_offset;
        m->size = run->io.size;
        m->count = run->io.count;
        m->write = run->io.direction == KVM_EXIT_IO_OUT;
        break;
    case KVM_EXIT_MMIO:
        m->space = 1;
        m->address = run->mmio.phys_addr;
        m->data = run->mmio.data;
        m->size = run->mmio.len;
        m->count = 1;
        m->write = run->mmio.is_write;
        break;
    case KVM_EXIT_INTR:
        return 1;
    default:
        note(v, reason, NULL);
        return 0;
    }
    v->counters.accesses[2 * m->space + (m->write != 0)]++;
    note(v, reason, m);
    return serve_access(v);
}

/* -- The thread --------------------------------------------------------- */

/* Enters the guest once. 1: an exit to serve, 0: look at the command again,
 * -1: KVM_RUN failed for good. */
static int enter(struct vcpu *v)
{
    v->counters.entered++;
    if (ioctl(v->fd, KVM_RUN, 0) == 0)
        return 1;
    if (errno == EINTR) {
        v->counters.interrupted++;
        return 0;
    }
    if (errno == EAGAIN) { /* a processor after its SIPI: enter again */
        v->counters.again++;
        return 0;
    }
    v->run_errno = errno;
    return -1;
}

/* KVM holds an IO or MMIO exit complete only when KVM_RUN is entered again,
 * and what comes back may be its second half. So: until EINTR. */
static int complete(struct vcpu *v)
{
    struct kvm_run *run = v->run;
    for (;;) {
        run->immediate_exit = 1;
        int result = enter(v);
        if (result == 0 && errno == EINTR)
            return 1;
        if (result < 0 || (result == 1 && !serve_exit(v)))
            return 0;
    }
}

/* Sleeps until there is another command than the one we parked for. */
static void park(struct vcpu *v, uint32_t word)
{
    __atomic_store_n(&v->parked, word, __ATOMIC_SEQ_CST);
    signal_fd(v->all->state_fd);
    signal_fd(v->all->work_fd); /* what is posted is to be drained now */
    while (__atomic_load_n(&v->command, __ATOMIC_SEQ_CST) == word)
        futex_wait(&v->command, word);
}

static void run_guest(struct vcpu *v)
{
    struct kvm_run *run = v->run;
    int entered = 0;
    for (;;) {
        /* Clear, then read, then enter: a kick that lands before the read is
         * seen by it, one that lands after makes KVM_RUN return at once. Only
         * our own handler writes the byte, so a compiler barrier is enough. */
        *(volatile uint8_t *)&run->immediate_exit = 0;
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        stall_at(v, VCPU_STALL_CLEARED);
        uint32_t word = __atomic_load_n(&v->command, __ATOMIC_SEQ_CST);
        uint32_t command = word & COMMAND_MASK;
        if (command == VCPU_STOP)
            return;
        if (command == VCPU_PAUSE) {
            if (entered && !complete(v))
                return;
            if (entered) /* refused where there is no kvmclock: no harm */
                ioctl(v->fd, KVM_KVMCLOCK_CTRL, 0);
            entered = 0;
            park(v, word);
            continue;
        }
        stall_at(v, VCPU_STALL_ENTERING);
        entered = 1;
        int result = enter(v);
        if (result < 0 || (result == 1 && !serve_exit(v)))
            return;
    }
}

static void *thread_main(void *argument)
{
    struct vcpu *v = argument;
    sigset_t mask;
    char name[16];
    running = v->run;
    snprintf(name, sizeof(name), "fc_vcpu %u", v->index);
    pthread_setname_np(pthread_self(), name);
    sigfillset(&mask);
    static const int open[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS};
    for (unsigned i = 0; i < sizeof(open) / sizeof(open[0]); i++)
        sigdelset(&mask, open[i]);
    sigdelset(&mask, SIGRTMIN);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    run_guest(v);
    v->end_horizon = __atomic_load_n(&v->all->tail, __ATOMIC_SEQ_CST);
    /* From here on nothing of the VM is touched but the two descriptors, which
     * live until we are joined. */
    __atomic_store_n(&v->dead, 1, __ATOMIC_SEQ_CST);
    signal_fd(v->all->state_fd);
    signal_fd(v->all->work_fd);
    return NULL;
}

/* -- The loop's side ---------------------------------------------------- */

static void on_kick(int number)
{
    (void)number;
    if (running)
        *(volatile uint8_t *)&running->immediate_exit = 1;
}

int kvm_set_tss_addr(int vm_fd, uint64_t address)
{
    return ioctl(vm_fd, KVM_SET_TSS_ADDR, (unsigned long)address) ? errno : 0;
}

int vcpu_install(void)
{
    struct sigaction action = {.sa_handler = on_kick};
    sigset_t kick;
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGRTMIN, &action, NULL))
        return errno;
    sigemptyset(&kick);
    sigaddset(&kick, SIGRTMIN);
    return pthread_sigmask(SIG_BLOCK, &kick, NULL);
}

int vcpu_start(struct vcpu *v)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    v->command = VCPU_PAUSE | 1u << COMMAND_BITS;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* no signal before its mask */
    int error = pthread_create(&thread, &attributes, thread_main, v);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    v->thread = (uint64_t)thread;
    return error;
}

void vcpu_command(struct vcpu *v, enum vcpu_command command)
{
    uint32_t next = ((v->command >> COMMAND_BITS) + 1) << COMMAND_BITS | command;
    __atomic_store_n(&v->command, next, __ATOMIC_SEQ_CST);
    if (command == VCPU_STOP) {
        /* The word changes before the wake, so a waiter cannot sleep on. */
        __atomic_fetch_or(&v->mail.word, VCPU_CLOSED, __ATOMIC_SEQ_CST);
        futex_wake(&v->mail.word);
    }
    futex_wake(&v->command);
    pthread_kill((pthread_t)v->thread, SIGRTMIN);
}

int vcpu_is_dead(const struct vcpu *v)
{
    return __atomic_load_n(&v->dead, __ATOMIC_SEQ_CST) != 0;
}

int vcpu_is_parked(const struct vcpu *v)
{
    return __atomic_load_n(&v->parked, __ATOMIC_SEQ_CST) == v->command ||
           vcpu_is_dead(v);
}

int vcpu_join(struct vcpu *v)
{
    return pthread_join((pthread_t)v->thread, NULL);
}

void vcpu_stall(struct vcpu *v, enum vcpu_stall_point point)
{
    __atomic_store_n(&v->stall, point, __ATOMIC_SEQ_CST);
    futex_wake(&v->stall);
}
