#include "vmmd/bus.h"

uint64_t page_load(const uint8_t *page, uint32_t offset, uint32_t size)
{
    const uint8_t *at = page + offset;
    switch (size) {
    case 1:
        return __atomic_load_n(at, __ATOMIC_ACQUIRE);
    case 2:
        return __atomic_load_n((const uint16_t *)at, __ATOMIC_ACQUIRE);
    case 4:
        return __atomic_load_n((const uint32_t *)at, __ATOMIC_ACQUIRE);
    default:
        return __atomic_load_n((const uint64_t *)at, __ATOMIC_ACQUIRE);
    }
}

void page_store(uint8_t *page, uint32_t offset, uint32_t size, uint64_t value)
{
    uint8_t *at = page + offset;
    switch (size) {
    case 1:
        __atomic_store_n(at, (uint8_t)value, __ATOMIC_RELEASE);
        break;
    case 2:
        __atomic_store_n((uint16_t *)at, (uint16_t)value, __ATOMIC_RELEASE);
        break;
    case 4:
        __atomic_store_n((uint32_t *)at, (uint32_t)value, __ATOMIC_RELEASE);
        break;
    default:
        __atomic_store_n((uint64_t *)at, value, __ATOMIC_RELEASE);
    }
}

void page_or_u32(uint8_t *page, uint32_t offset, uint32_t bits)
{
    __atomic_fetch_or((uint32_t *)(page + offset), bits, __ATOMIC_SEQ_CST);
}

void page_clear_u32(uint8_t *page, uint32_t offset, uint32_t bits)
{
    __atomic_fetch_and((uint32_t *)(page + offset), ~bits, __ATOMIC_SEQ_CST);
}
