/* What the bytes of a memory file cost by themselves: pages that are known are
 * written to a fresh temporary file, which is fsynced and renamed.
 *
 *     memory_file FOLDER SIZE_MIB PAGES RUN
 *
 * PAGES pages (0: all) lie in runs of RUN pages, evenly spread. Prints ms. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ull
#define CHUNK (2ull << 20)

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void put(int fd, const uint8_t *from, uint64_t length, uint64_t offset)
{
    while (length) {
        ssize_t count = pwrite(fd, from, length, (off_t)offset);
        if (count <= 0)
            exit(1);
        from += count, offset += (uint64_t)count, length -= (uint64_t)count;
    }
}

int main(int argc, char **argv)
{
    if (argc != 5 || chdir(argv[1]))
        return 2;
    uint64_t size = strtoull(argv[2], NULL, 0) << 20, pages = strtoull(argv[3], NULL, 0);
    uint64_t run = strtoull(argv[4], NULL, 0) * PAGE, step = CHUNK;
    if (pages)
        step = size / (pages * PAGE / run) & -PAGE;
    else
        run = CHUNK;
    uint8_t *raw = mmap(NULL, size + CHUNK, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED)
        return 1;
    uint8_t *memory = (uint8_t *)(((uintptr_t)raw + CHUNK - 1) & -CHUNK);
    uint64_t seed = 88172645463325252u;
    for (uint64_t at = 0; at + run <= size; at += step)
        for (uint64_t i = 0; i < run; i += 8) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            *(uint64_t *)(memory + at + i) = seed;
        }
    double start = now_ms();
    int fd = open("twin.part", O_RDWR | O_CREAT | O_EXCL, 0666);
    if (fd < 0 || ftruncate(fd, (off_t)size))
        return 1;
    for (uint64_t at = 0; at + run <= size; at += step)
        put(fd, memory + at, run, at);
    if (fsync(fd) || close(fd) || rename("twin.part", "twin"))
        return 1;
    printf("%.3f\n", now_ms() - start);
    return unlink("twin");
}
