#ifndef VMMD_MEMORY_FILE_H
#define VMMD_MEMORY_FILE_H
#include <stdint.h>

#include "vmmd/memory.h"

/* Between guest memory and a memory file, which has the regions end to end.
 * Pages are numbered by their place in the file; bitmaps have a bit a page. */

// cffi>
#define MEMFILE_BLOCK 2097152
#define MEMFILE_THREADS 2

/* One pass over a memory file. `take` names the pages to write from memory,
 * `keep` (or NULL) those that are the base file's; they have no page in common.
 * With skip_zero, zero pages leave `take` unwritten. With copy_base the kept
 * pages are copied to out_fd; else they are there already, or not wanted.
 * `checksums` gets a crc32c a block over its pages of both kinds, in order,
 * but for blocks that are marked in `known` (a byte a block).
 * Without a file to write (out_fd -1) memory is only checked. The errors are negative
 * errnos; -EIO: the base file has become shorter. */
struct memfile_pass {
    const struct guest_memory *memory;
    uint64_t pages;
    uint64_t *take;
    const uint64_t *keep;
    const uint8_t *known;
    uint32_t *checksums;
    uint8_t *checked;                 /* a block, 0 at first */
    uint8_t *kept[MEMFILE_THREADS];   /* MEMFILE_BLOCK bytes each, with `keep` alone */
    uint64_t thread[MEMFILE_THREADS];
    int base_fd;
    int out_fd;
    int end_fd; /* an eventfd */
    int read_error;
    int write_error;
    uint32_t skip_zero;
    uint32_t copy_base;
    uint32_t begun; /* blocks, from the first on */
    uint32_t stopped;
    uint32_t threads;
};

/* All of it: checks and writes block by block. */
void memfile_work(struct memfile_pass *pass);

/* Let a thread do it, and with two `threads` a second check from the end on, until
 * they meet. Each adds one to end_fd when it ends: soon after an error, or
 * memfile_stop from any thread. 0 or a negative errno: there is none; else
 * memfile_join when as many as `threads` then says have ended. */
int memfile_start(struct memfile_pass *pass, uint32_t threads);
void memfile_stop(struct memfile_pass *pass);
void memfile_join(struct memfile_pass *pass);

/* Marks, from bit `first` on, the pages of [host, host + size) that hold what
 * was written there: present or swapped, and no shared zero page. `private_file`:
 * the file's own pages are not meant. Reads no page. `scan`: try PAGEMAP_SCAN,
 * before reading `pagemap_fd`, which is /proc/self/pagemap. 0 or a negative errno. */
int memfile_present(int pagemap_fd, const void *host, uint64_t size,
                    uint32_t private_file, uint32_t scan, uint64_t *bitmap,
                    uint64_t first);

/* Marks the pages that touch data extents of a file. 0 or a negative errno. */
int memfile_extents(int fd, uint64_t pages, uint64_t *bitmap);

/* Copy bytes to the same place of another file, shared where that can be. 0 or a
 * negative errno. */
int memfile_copy(int from, int to, uint64_t offset, uint64_t length);
// <cffi
#endif
