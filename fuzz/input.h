#ifndef VMMD_FUZZ_INPUT_H
#define VMMD_FUZZ_INPUT_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The fuzzer's bytes, taken from the front; past their end all is zero. */

struct input {
    const uint8_t *at;
    size_t left;
};

/* The next `bytes`, at most eight, as a little-endian number. */
static inline uint64_t take(struct input *in, size_t bytes)
{
    uint64_t value = 0;

    if (bytes > in->left)
        bytes = in->left;
    memcpy(&value, in->at, bytes);
    in->at += bytes;
    in->left -= bytes;
    return value;
}

/* A descriptor of a virtqueue (virtio 1.2, 2.7.5) at `at`. */
static inline void put_descriptor(uint8_t *at, uint64_t addr, uint32_t len,
                                  uint16_t flags, uint16_t next)
{
    memcpy(at, &addr, 8);
    memcpy(at + 8, &len, 4);
    memcpy(at + 12, &flags, 2);
    memcpy(at + 14, &next, 2);
}
#endif
