#define _GNU_SOURCE
#include "vmmd/loop/files.h"

#include <errno.h>
#include <linux/mman.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

void *files_map(uint64_t size, uint64_t alignment)
{
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (size > UINT64_MAX - alignment) {
        errno = ENOMEM;
        return NULL;
    }
    uint8_t *raw = mmap(NULL, size + alignment, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (raw == MAP_FAILED)
        return NULL;
    uint64_t before = -(uint64_t)(uintptr_t)raw & (alignment - 1);
    if (before)
        munmap(raw, before);
    if (alignment - before)
        munmap(raw + before + size, alignment - before);
    return raw + before;
}

void *files_map_huge(uint64_t size)
{
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB;
    void *raw = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);
    return raw == MAP_FAILED ? NULL : raw;
}

int files_map_file(void *address, uint64_t size, int fd, uint64_t offset)
{
    const int kind = fd < 0 ? MAP_ANONYMOUS : 0;
    const int flags = MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE | kind;
    void *raw =
        mmap(address, size, PROT_READ | PROT_WRITE, flags, fd, (off_t)offset);
    return raw == MAP_FAILED ? -1 : 0;
}

int files_unmap(void *address, uint64_t size)
{
    return munmap(address, size);
}

int files_userfaultfd(int flags)
{
    return (int)syscall(SYS_userfaultfd, flags);
}
