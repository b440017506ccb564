#define _GNU_SOURCE
#include "vmmd/loop/vcpu_parts.h"

/* -- The posted ring: design rule by rule ------------------------------- */

/* Appends a write, or returns 0 if the ring is full. The slot is known to be
 * free before the ticket is taken, since a ticket cannot be given back; from
 * the ticket to the sequence nothing blocks. */
int posted_put(struct vcpu *v, const struct vcpu_window *w, uint32_t offset,
               uint32_t size, uint64_t value)
{
    struct vcpu_threads *all = v->all;
    uint64_t ticket = __atomic_load_n(&all->tail, __ATOMIC_RELAXED);
    do {
        uint64_t head = __atomic_load_n(&all->head, __ATOMIC_ACQUIRE);
        /* Signed: a stale ticket may lie behind head, and the swap then fails. */
        if ((int64_t)(ticket - head) > (int64_t)all->mask) {
            v->counters.full++;
            return 0;
        }
    } while (!__atomic_compare_exchange_n(&all->tail, &ticket, ticket + 1, 0,
                                          __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
    stall_at(v, VCPU_STALL_PUBLISHING);
    struct vcpu_posted *slot = &all->slot[ticket & all->mask];
    slot->value = value;
    slot->window = w->id;
    slot->offset = (uint16_t)offset;
    slot->size = (uint16_t)size;
    __atomic_store_n(&slot->sequence, ticket + 1, __ATOMIC_RELEASE);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    v->counters.posted++;
    if (__atomic_load_n(&all->awaited, __ATOMIC_RELAXED) == ticket) {
        v->counters.woken++;
        signal_fd(all->work_fd);
    }
    return 1;
}

static int published(const struct vcpu_threads *all, uint64_t ticket)
{
    const struct vcpu_posted *slot = &all->slot[ticket & all->mask];
    return __atomic_load_n(&slot->sequence, __ATOMIC_ACQUIRE) == ticket + 1;
}

uint32_t vcpu_take_posted(struct vcpu_threads *all, struct vcpu_posted *out,
                          uint32_t room)
{
    uint64_t head = all->head;
    uint32_t n = 0;
    while (n < room && published(all, head)) {
        out[n++] = all->slot[head & all->mask];
        head++;
    }
    __atomic_store_n(&all->head, head, __ATOMIC_RELEASE);
    return n;
}

int vcpu_posted_empty(const struct vcpu_threads *all)
{
    return all->head == __atomic_load_n(&all->tail, __ATOMIC_SEQ_CST);
}

int vcpu_arm(struct vcpu_threads *all)
{
    __atomic_store_n(&all->awaited, all->head, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return !published(all, all->head) && vcpu_next_asked(all, 0) == all->count;
}

/* -- The mailbox -------------------------------------------------------- */

/* Asks the loop and sleeps until it answers. 0 if the vCPU is to stop. A pause
 * leaves us waiting: the answer comes, and only then is the exit complete. */
int mailbox_ask(struct vcpu *v)
{
    struct vcpu_mailbox *m = &v->mail;
    uint32_t seen = VCPU_EMPTY;
    v->counters.asked++;
    m->horizon = __atomic_load_n(&v->all->tail, __ATOMIC_SEQ_CST);
    if (!__atomic_compare_exchange_n(&m->word, &seen, VCPU_ASKED, 0,
                                     __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
        return 0;
    signal_fd(v->all->work_fd);
    while (__atomic_load_n(&m->word, __ATOMIC_ACQUIRE) == VCPU_ASKED)
        futex_wait(&m->word, VCPU_ASKED);
    seen = VCPU_ANSWERED;
    return __atomic_compare_exchange_n(&m->word, &seen, VCPU_EMPTY, 0,
                                       __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

uint32_t vcpu_next_asked(const struct vcpu_threads *all, uint32_t from)
{
    for (uint32_t i = from; i < all->count; i++) {
        const struct vcpu_mailbox *m = &all->vcpu[i]->mail;
        if (__atomic_load_n(&m->word, __ATOMIC_ACQUIRE) == VCPU_ASKED &&
            (int64_t)(all->head - m->horizon) >= 0)
            return i;
    }
    return all->count;
}

int vcpu_answer(struct vcpu *v)
{
    uint32_t seen = VCPU_ASKED;
    if (!__atomic_compare_exchange_n(&v->mail.word, &seen, VCPU_ANSWERED, 0,
                                     __ATOMIC_RELEASE, __ATOMIC_RELAXED))
        return 0;
    futex_wake(&v->mail.word);
    return 1;
}
