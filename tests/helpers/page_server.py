"""A page server: serves a memory file to one monitor, page by page.

    python -m tests.helpers.page_server SOCKET FILE

A process of its own, since whoever waits for a page may hold the GIL. Prints
"ready" once it listens, and ends when the monitor's socket does.
"""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
import select
import socket
import struct
import sys

from vmmd._native import ffi

COPY, ZEROPAGE = 0xC028AA03, 0xC020AA04
PAGEFAULT, REMOVE = 0x12, 0x15
PAGE_SIZE = 4096


class Server:
    """Serves faults of the regions from a mapped file."""

    def __init__(self, regions: list[dict[str, int]], uffd: int, path: str) -> None:
        self.regions, self.uffd = regions, uffd
        with open(path, "rb") as file:
            self.file = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE)
        self.source = int(ffi.cast("uintptr_t", ffi.from_buffer(self.file)))
        self.removed: set[int] = set()

    def serve(self) -> None:
        """Answer all events that are there."""
        while True:
            try:
                event = os.read(self.uffd, 32)
            except BlockingIOError:
                return
            if event[0] == PAGEFAULT:
                (address,) = struct.unpack_from("<Q", event, 16)
                self.give(address & -PAGE_SIZE)
            elif event[0] == REMOVE:
                start, end = struct.unpack_from("<QQ", event, 8)
                self.removed |= set(range(start, end, PAGE_SIZE))

    def give(self, page: int) -> None:
        """Fill one page, with zeros if it was removed."""
        if page in self.removed:
            self.call(ZEROPAGE, struct.pack("<QQQq", page, PAGE_SIZE, 0, 0))
            return
        for region in self.regions:
            offset = page - region["base_host_virt_addr"]
            if 0 <= offset < region["size"]:
                source = self.source + region["offset"] + offset
                copy = struct.pack("<QQQQq", page, source, PAGE_SIZE, 0, 0)
                self.call(COPY, copy)

    def call(self, number: int, argument: bytes) -> None:
        """An ioctl; a page that is there by now is no error."""
        try:
            fcntl.ioctl(self.uffd, number, bytearray(argument))
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise


def main(path: str, memory_path: str) -> None:
    """Serve one monitor."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(1)
    print("ready", flush=True)
    connection, _ = listener.accept()
    message, fds, _, _ = socket.recv_fds(connection, 1 << 16, 1)
    server = Server(json.loads(message), fds[0], memory_path)
    while True:
        ready, _, _ = select.select([fds[0], connection.fileno()], [], [])
        if fds[0] in ready:
            server.serve()
        if connection.fileno() in ready:
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
