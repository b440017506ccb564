#include "vmmd/memory.h"

#include <stddef.h>

static const struct gm_region *find(const struct guest_memory *mem, uint64_t gpa)
{
    for (uint32_t i = 0; i < mem->count; i++) {
        const struct gm_region *r = &mem->region[i];
        if (gpa - r->gpa < r->size)
            return r;
    }
    return NULL;
}

void *gm_slice(const struct guest_memory *mem, uint64_t gpa, uint64_t len)
{
    const struct gm_region *r = find(mem, gpa);
    if (!r || len > r->size - (gpa - r->gpa))
        return NULL;
    return r->host + (gpa - r->gpa);
}

void gm_mark(const struct guest_memory *mem, uint64_t gpa, uint64_t len)
{
    const struct gm_region *r = find(mem, gpa);
    if (!r || !r->dirty || !len)
        return;
    if (len > r->size - (gpa - r->gpa))
        len = r->size - (gpa - r->gpa);
    uint64_t first = (gpa - r->gpa) >> GM_PAGE_SHIFT;
    uint64_t last = (gpa - r->gpa + len - 1) >> GM_PAGE_SHIFT;
    for (uint64_t page = first; page <= last; page++) {
        uint64_t bit = 1ull << (page & 63);
        uint64_t *word = &r->dirty[page >> 6];
        /* A plain look first: most pages of a hot buffer are marked already,
         * and a locked or costs twenty times a load. */
        if (!(__atomic_load_n(word, __ATOMIC_RELAXED) & bit))
            __atomic_fetch_or(word, bit, __ATOMIC_RELAXED);
    }
}
