#ifndef VMMD_MEMORY_H
#define VMMD_MEMORY_H
#include <stdint.h>

/* Guest memory as the data path sees it: a short table of regions, sorted by
 * guest-physical address. The loop owns the mappings behind `host`; nothing
 * here allocates or frees. `dirty` is the host-writes bitmap of the region, a
 * bit per 4 KiB page, or NULL when nobody asks. */

// cffi>
#define GM_MAX_REGIONS 8
#define GM_PAGE_SHIFT 12

struct gm_region {
    uint64_t gpa;
    uint64_t size;
    uint8_t *host;
    uint64_t *dirty;
};

struct guest_memory {
    uint32_t count;
    uint32_t reserved;
    struct gm_region region[8];
};

/* Host pointer to [gpa, gpa + len) when it lies in one region, else NULL.
 * len 0 is a range like any other: NULL unless gpa lies in a region. */
void *gm_slice(const struct guest_memory *mem, uint64_t gpa, uint64_t len);

/* Marks the pages of [gpa, gpa + len) as written by the host. Ranges outside
 * memory are ignored. Safe from any thread. */
void gm_mark(const struct guest_memory *mem, uint64_t gpa, uint64_t len);
// <cffi
#endif
