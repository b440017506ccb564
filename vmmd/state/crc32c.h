#ifndef VMMD_CRC32C_H
#define VMMD_CRC32C_H
#include <stddef.h>
#include <stdint.h>

/* CRC-32C (Castagnoli: reflected polynomial 0x82f63b78, all ones before and
 * after), the checksum of state files and of the pages of memory files. */

// cffi>
/* The checksum of what `crc` is the checksum of, followed by data[0..len).
 * Starts at 0; the check value of "123456789" is 0xe3069283. */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);

/* The same, by a table: for processors without SSE4.2 and PCLMULQDQ. */
uint32_t crc32c_by_table(uint32_t crc, const void *data, size_t len);
// <cffi
#endif
