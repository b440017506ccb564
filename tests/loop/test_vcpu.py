"""The threads without a KVM: rules, refusals, a KVM_RUN that fails."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
import trio

from tests.helpers.vcpus import UART, Recorder, window
from vmmd._native import lib
from vmmd.bus import Access, Rule, Space
from vmmd.cpu.exits import EndReason
from vmmd.loop.vcpu import VcpuThreads
from vmmd.loop.vcpufd import VcpuFd

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN_BYTES = 12288


@pytest.fixture
def no_vcpu() -> Iterator[VcpuFd]:
    """A descriptor with a page to map that knows no KVM_RUN."""
    fd = os.memfd_create("run")
    os.ftruncate(fd, RUN_BYTES)
    vcpu = VcpuFd(fd, 0, RUN_BYTES, 4096)
    yield vcpu
    vcpu.close()


async def test_a_run_that_fails_ends_the_vm_with_its_errno(no_vcpu: VcpuFd) -> None:
    threads = VcpuThreads([no_vcpu])
    handler = Recorder()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(threads.pump, handler)
        threads.start()
        await threads.wait_parked()
        assert handler.ends == []
        threads.run()
        with trio.fail_after(5):
            await handler.ended_event.wait()
        nursery.cancel_scope.cancel()
    (end,) = handler.ends
    assert (end.reason, end.detail) == (EndReason.RUN_FAILED, errno.ENOTTY)
    assert threads.parked
    threads.request_stop()
    assert await threads.join() == ()
    threads.close()


async def test_an_idle_pump_sleeps(no_vcpu: VcpuFd) -> None:
    """No turn of the pump without a reason: it must not cost an idle VM."""
    turns = 0

    class Counting(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            nonlocal turns
            turns += task.name.endswith("VcpuThreads.pump")

    threads = VcpuThreads([no_vcpu])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(threads.pump, Recorder())
        threads.start()
        await threads.wait_parked()
        await trio.sleep(0.01)
        trio.lowlevel.add_instrument(Counting())
        await trio.sleep(0.05)
        assert turns == 0
        nursery.cancel_scope.cancel()
    threads.request_stop()
    assert await threads.join() == ()
    threads.close()


async def test_counts_out_of_range(no_vcpu: VcpuFd) -> None:
    with pytest.raises(ValueError, match="1 to 32 vCPUs"):
        VcpuThreads([])
    with pytest.raises(ValueError, match="1 to 32 vCPUs"):
        VcpuThreads([no_vcpu] * 33)
    for slots in (0, 3, 1000):
        with pytest.raises(ValueError, match="not a power of two"):
            VcpuThreads([no_vcpu], slots=slots)


@pytest.mark.parametrize(
    "rule",
    [
        Rule(0, 3, write=True, access=Access.POSTED),
        Rule(4095, 2, write=True, access=Access.POSTED),
        Rule(0, 4, write=False, access=Access.SHADOW, length=4097),
        Rule(0, 4, write=True, access=Access.SHADOW),
        Rule(0, 4, write=False, access=Access.POSTED),
        Rule(0, 4, write=True, access=Access.W1C, target=2),
        Rule(0, 4, write=True, access=Access.W1C, target=4096),
    ],
)
async def test_rules_that_no_page_can_serve(no_vcpu: VcpuFd, rule: Rule) -> None:
    threads = VcpuThreads([no_vcpu])
    with pytest.raises(ValueError, match="Rule"):
        threads.add_window(window(Space.PIO, UART, rule, length=8))
    threads.close()


async def test_tables_are_bounded(no_vcpu: VcpuFd) -> None:
    threads = VcpuThreads([no_vcpu])
    rule = Rule(0, 1, write=True, access=Access.POSTED)
    with pytest.raises(ValueError, match="more than 32 rules"):
        threads.add_window(window(Space.PIO, UART, *[rule] * 33, length=8))
    for i in range(lib.VCPU_MAX_WINDOWS):
        threads.add_window(window(Space.MMIO, i * 4096))
        threads.add_window(window(Space.PIO, i * 8, length=8))
    with pytest.raises(ValueError, match="more than 64 windows"):
        threads.add_window(window(Space.MMIO, 1 << 40))
    threads.close()
