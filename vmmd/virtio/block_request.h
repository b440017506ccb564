#ifndef VMMD_VIRTIO_BLOCK_REQUEST_H
#define VMMD_VIRTIO_BLOCK_REQUEST_H
#include "vmmd/virtio/block.h"

/* One request (virtio 1.2, 5.2.6): read from its chain, then carried out. Which
 * one when, and by whom, is block.c's. */

enum { SECTOR_SHIFT = 9, SECTOR_SIZE = 512 };
enum { TYPE_IN = 0, TYPE_OUT = 1, TYPE_FLUSH = 4, TYPE_GET_ID = 8 };
enum { STATUS_OK = 0, STATUS_IOERR = 1, STATUS_UNSUPP = 2 };

/* Reads the chain into the slot. 1 if there is work for the file; 0 if the slot's
 * result is final. Every status is IOERR until something else is proven. */
int request_parse(struct block *block, struct block_slot *slot);

/* Moves what is left; 0, or errno. A file that ends early is EIO. */
int request_transfer(struct block_slot *slot, int flags);

/* The same, noting whether it slept: its time says nothing otherwise. */
int request_transfer_watched(struct block_slot *slot);
#endif
