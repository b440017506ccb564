#ifndef VMMD_BUS_H
#define VMMD_BUS_H
#include <stdint.h>

// cffi>
/* Aligned atomic accesses to a register page; size 1, 2, 4 or 8. */
uint64_t page_load(const uint8_t *page, uint32_t offset, uint32_t size);
void page_store(uint8_t *page, uint32_t offset, uint32_t size, uint64_t value);
void page_or_u32(uint8_t *page, uint32_t offset, uint32_t bits);
void page_clear_u32(uint8_t *page, uint32_t offset, uint32_t bits);
// <cffi
#endif
