"""What /dev/kvm's absence, refusal or oddity is told as."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from vmmd.errors import HostError
from vmmd.loop.ioctl import OwnedFd, host_error
from vmmd.loop.kvm import Cap, Kvm
from vmmd.loop.vcpufd import VcpuFd, VcpuPart

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOBODY = 65534


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """As one whom file permissions hold back."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    yield
    os.seteuid(before)


def test_no_kvm_names_the_modules(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="modprobe kvm-intel"):
        Kvm.open(str(tmp_path / "kvm"))


def test_no_permission_names_the_group(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    device = tmp_path / "kvm"
    device.touch(mode=0)
    request.getfixturevalue("unprivileged")
    with pytest.raises(HostError, match="usermod -aG kvm"):
        Kvm.open(str(device))


def test_what_is_no_kvm_is_closed_again() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(HostError, match=r"KVM_GET_API_VERSION.*ENOTTY"):
        Kvm.open("/dev/null")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("call", "number", "words"),
    [
        ("KVM_CREATE_VM", errno.ENOMEM, "out of memory"),
        ("KVM_CREATE_VM", errno.EBUSY, "another hypervisor"),
        ("KVM_CREATE_VCPU", errno.EMFILE, "ulimit -n"),
        ("KVM_CREATE_VCPU", errno.EINVAL, "more vCPUs"),
        ("KVM_SET_SREGS", errno.EINVAL, "KVM_SET_SREGS: Invalid argument (EINVAL)"),
        ("KVM_SET_SREGS", 9999, "9999"),
    ],
)
def test_an_errno_names_its_call_and_way_out(
    call: str, number: int, words: str
) -> None:
    text = str(host_error(call, OSError(number, "")))
    assert text.startswith(call)
    assert words in text


class Lacking(Kvm):
    """A KVM of version 12 without the capabilities in ``lacks``."""

    lacks: tuple[Cap, ...] = (Cap.IMMEDIATE_EXIT, Cap.XCRS)
    version = 12

    def api_version(self) -> int:
        return self.version

    def check_extension(self, cap: Cap) -> int:
        return 0 if cap in self.lacks else 1


def test_each_missing_capability_is_named() -> None:
    kvm = Lacking(-1)
    with pytest.raises(HostError, match="XCRS, IMMEDIATE_EXIT"):
        kvm.check()
    kvm.lacks = ()
    kvm.check()
    kvm.version = 11
    with pytest.raises(HostError, match="version 11, not 12"):
        kvm.check()


def test_a_descriptor_is_closed_once() -> None:
    owner = OwnedFd(os.open("/dev/null", os.O_RDONLY))
    owner.close()
    owner.close()
    assert owner.fd == -1


def test_state_of_a_wrong_size_is_refused_before_the_call() -> None:
    with open(os.memfd_create("run"), "r+b") as file:
        file.truncate(4096)
        vcpu = VcpuFd(os.dup(file.fileno()), 0, 4096, 8192)
    with pytest.raises(ValueError, match="REGS is 144 bytes, got 3"):
        vcpu.set(VcpuPart.REGS, b"abc")
    with pytest.raises(ValueError, match="XSAVE is 8192 bytes, got 4096"):
        vcpu.set(VcpuPart.XSAVE, bytes(4096))
    with pytest.raises(HostError, match=r"KVM_GET_REGS.*ENOTTY"):
        vcpu.get(VcpuPart.REGS)
    assert not vcpu.has_tsc_offset()
    vcpu.close()
    vcpu.close()
