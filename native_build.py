"""Builds ``vmmd._native``: every C file under vmmd/, one abi3 extension.

What Python may call is declared once, in the C headers, between the lines
``// cffi>`` and ``// <cffi``; this file only collects it. Inside the markers a
header keeps to what cffi's parser knows: typedefs, structs, prototypes,
``#define NAME 123``. The order of HEADERS is the order of use.
"""

import os
import re
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent

HEADERS = [
    "vmmd/state/crc32c.h",
    "vmmd/memory.h",
    "vmmd/bus.h",
    "vmmd/virtio/ring.h",
    "vmmd/virtio/pace.h",
    "vmmd/virtio/block.h",
    "vmmd/virtio/net.h",
    "vmmd/loop/vcpu.h",
    "vmmd/loop/files.h",
    "vmmd/loop/memory_file.h",
]


def _declarations(text: str) -> str:
    return "\n".join(
        re.findall(r"^// cffi>$(.*?)^// <cffi$", text, re.MULTILINE | re.DOTALL)
    )


def _builder() -> FFI:
    headers = [name for name in HEADERS if (HERE / name).with_suffix(".c").exists()]
    sources = sorted(str(p.relative_to(HERE)) for p in (HERE / "vmmd").rglob("*.c"))
    builder = FFI()
    for name in headers:
        builder.cdef(_declarations((HERE / name).read_text()))
    builder.set_source(
        "vmmd._native",
        "\n".join(f'#include "{name}"' for name in headers),
        sources=[name for name in sources if name != "vmmd/_native.c"],
        include_dirs=["."],
        depends=headers,
        extra_compile_args=os.environ.get(
            "VMMD_CFLAGS", "-O2 -g -std=gnu11 -fno-strict-aliasing"
        ).split(),
        libraries=["pthread"],
    )
    return builder


ffibuilder = _builder()
