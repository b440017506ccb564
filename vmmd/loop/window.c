#define _GNU_SOURCE
#include <string.h>

#include "vmmd/bus.h"
#include "vmmd/loop/vcpu_parts.h"

enum { SYNC, SHADOW, POSTED, STORED, W1C, STORED_POSTED }; /* vmmd/bus.py Access */

const struct vcpu_window *window_find(const struct vcpu_threads *all, uint32_t space,
                                      uint64_t address)
{
    uint32_t count = __atomic_load_n(&all->window_count[space], __ATOMIC_ACQUIRE);
    for (uint32_t i = 0; i < count; i++) {
        const struct vcpu_window *w = &all->window[space][i];
        if (address - w->base < w->length)
            return w;
    }
    return NULL;
}

static const struct vcpu_rule *find_rule(const struct vcpu_window *w, uint64_t offset,
                                         uint32_t size, uint32_t write)
{
    const struct vcpu_rules *rules = __atomic_load_n(&w->rules, __ATOMIC_ACQUIRE);
    if (!rules || (offset & (size - 1)))
        return NULL;
    for (uint32_t i = 0; i < rules->count; i++) {
        const struct vcpu_rule *r = &rules->rule[i];
        if (r->size == size && r->write == write && offset >= r->offset &&
            offset + size <= r->end)
            return r;
    }
    return NULL;
}

/* Serves one item by its window's rule; 0 if only the loop can. A rule's size
 * is 1, 2, 4 or 8, so what passes find_rule is aligned and in the page. */
int window_serve(struct vcpu *v, const struct vcpu_window *w, uint64_t offset,
                 uint8_t *data, uint32_t size, uint32_t write)
{
    const struct vcpu_rule *r = find_rule(w, offset, size, write);
    uint64_t value = 0;
    if (!r)
        return 0;
    memcpy(&value, data, size);
    switch (r->access) {
    case SHADOW:
        value = page_load(w->page, (uint32_t)offset, size);
        memcpy(data, &value, size);
        v->counters.shadow++;
        return 1;
    case STORED_POSTED:
        page_store(w->page, (uint32_t)offset, size, value & r->mask);
        return posted_put(v, w, (uint32_t)offset, size, value);
    case POSTED:
        return posted_put(v, w, (uint32_t)offset, size, value);
    case STORED:
        page_store(w->page, (uint32_t)offset, size, value & r->mask);
        v->counters.stored++;
        return 1;
    case W1C:
        page_clear_u32(w->page, r->target, (uint32_t)value);
        v->counters.cleared++;
        return 1;
    default:
        return 0;
    }
}

int vcpu_add_window(struct vcpu_threads *all, const struct vcpu_window *window)
{
    uint32_t *count = &all->window_count[window->space];
    if (*count == VCPU_MAX_WINDOWS)
        return -1;
    all->window[window->space][*count] = *window;
    __atomic_store_n(count, *count + 1, __ATOMIC_RELEASE);
    return 0;
}

void vcpu_set_rules(struct vcpu_threads *all, uint32_t id,
                    const struct vcpu_rules *rules)
{
    for (uint32_t space = 0; space < 2; space++)
        for (uint32_t i = 0; i < all->window_count[space]; i++)
            if (all->window[space][i].id == id)
                __atomic_store_n(&all->window[space][i].rules, rules,
                                 __ATOMIC_SEQ_CST);
}
