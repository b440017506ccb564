"""A rehearsal builds a board on KVM and leaves nothing of them, but a VM to take."""

from __future__ import annotations

import pytest

from tests.helpers.program import printed_by

# Prints what the process has open before and after, and after the VM was taken.
OPEN = """
import os, trio
from vmmd.loop import board, rehearsal, spare
from vmmd.loop.host_fit import host_facts

def held():
    names = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
             if os.path.lexists(f"/proc/self/fd/{fd}")]
    return sorted(name for name in names if "kvm" in name or "memfd" in name)

built = []
made = rehearsal.assemble
rehearsal.assemble = lambda *a, **k: built.append(made(*a, **k)) or built[-1]
print(held())
trio.run(rehearsal.rehearse, lambda: True)
print(len(built), held())
spare.take().close()
print(held())
"""


def test_a_board_is_built_and_closed_and_a_vm_is_left() -> None:
    before, after, taken = printed_by(OPEN).splitlines()
    assert before == "[]"
    assert after == "1 ['/dev/kvm', 'anon_inode:kvm-vm']"
    assert taken == "[]"


# Prints that it lives after a rehearsal that was allowed little: of what, how much.
LIMITED = """
import os, resource, sys, trio
from vmmd.loop import rehearsal

async def main():
    limit = int(sys.argv[2])
    if sys.argv[1] == "RLIMIT_NOFILE":
        limit += max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(getattr(resource, sys.argv[1]), (limit, limit))
    await rehearsal.rehearse(lambda: True)
    print("lives")

trio.run(main)
"""


@pytest.mark.parametrize(
    ("limit", "value"),
    [("RLIMIT_FSIZE", 64 << 20), *(("RLIMIT_NOFILE", more) for more in range(8))],
)
def test_a_process_that_is_allowed_little_outlives_it(limit: str, value: int) -> None:
    assert printed_by(LIMITED, limit, str(value)) == "lives\n"
