#ifndef VMMD_LOOP_FILES_H
#define VMMD_LOOP_FILES_H
#include <stdint.h>

// cffi>
/* Anonymous, private, unreserved memory of `size` bytes at a multiple of
 * `alignment` (a power of two of whole pages). NULL with errno set if the
 * kernel has none; nothing beside it stays mapped. */
void *files_map(uint64_t size, uint64_t alignment);

/* The same of huge pages of 2 MiB, which are reserved at once: NULL with ENOMEM
 * where the host has too few. `size` is a multiple of theirs. */
void *files_map_huge(uint64_t size);

/* Puts a private mapping of a file at `address`, over what files_map gave there:
 * untouched pages are the file's, written ones are not. With fd -1 fresh zero
 * memory, for what a guest gives back. 0, or -1 with errno set. */
int files_map_file(void *address, uint64_t size, int fd, uint64_t offset);

/* Unmaps what files_map gave. 0, or -1 with errno set. */
int files_unmap(void *address, uint64_t size);

/* userfaultfd(2), which libc has no name for. -1 with errno set. */
int files_userfaultfd(int flags);
// <cffi
#endif
