"""The lab host: its initramfs and the QEMU that emulates it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lab import cache, cpio, kernels
from lab.images import BUSYBOX

MODULES = (
    "virtio_pci",
    "virtio_console",
    "9pnet_virtio",
    "9p",
    "overlay",
    "kvm_amd",
    "tun",
    "virtio_rng",
)
# `npt` and `svm` are what the host's KVM needs; TCG emulates no VMX.
_CPU = "max,svm=on,npt=on"
_KERNEL_ARGUMENTS = (
    "console=ttyS0",
    "panic=-1",
    "quiet",
    "mitigations=off",
    "nokaslr",
    "tsc=reliable",
)
# The order is that of the ports: vport0p1, vport0p2, vport0p3.
PORTS = ("stdout", "stderr", "status")


@dataclass(frozen=True, slots=True)
class Host:
    """A lab host to be started: its kernel, initramfs and size."""

    kernel: kernels.Kernel
    initrd: Path
    memory_mib: int
    cpus: int

    def command(self, session: Path, share: Path | None, fds: list[int]) -> list[str]:
        """QEMU's command line.

        ``session`` holds the file ``command``, a shell script, and gets
        ``console.log``; ``fds`` are the writing ends of PORTS.
        """
        arguments = [
            *_KERNEL_ARGUMENTS,
            f"lab.session={session}",
            f"lab.modules={self.kernel.modules}",
        ]
        shares = _ninep("hostroot", Path("/"), ",readonly=on,multidevs=remap")
        if share is not None:
            arguments.append(f"lab.share={share}")
            shares += _ninep("share", share, ",multidevs=remap")
        return [
            *("qemu-system-x86_64", "-M", "q35,hpet=off"),
            *("-accel", "tcg,thread=multi,tb-size=1024", "-cpu", _CPU),
            *("-smp", str(self.cpus), "-m", str(self.memory_mib)),
            *("-nodefaults", "-display", "none", "-no-reboot"),
            *("-serial", f"file:{session / 'console.log'}"),
            *("-kernel", str(self.kernel.vmlinux), "-initrd", str(self.initrd)),
            *("-append", " ".join(arguments)),
            *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
            *shares,
            *(word for n, fd in enumerate(fds, 1) for word in _port(n, fd)),
        ]


def host(memory_mib: int, cpus: int) -> Host:
    """A host of that size; makes its kernel and initramfs if they are not there."""
    kernel = kernels.kernel(kernels.packages()["full"])
    recipe = cache.digest(
        ("host.py", "host-init.sh", "cpio.py", str(BUSYBOX)), str(kernel.folder)
    )
    folder = cache.entry(
        f"host-{recipe}", lambda work: _write_initrd(work / "initrd", kernel)
    )
    return Host(kernel, folder / "initrd", memory_mib, cpus)


def _write_initrd(path: Path, kernel: kernels.Kernel) -> None:
    modules = kernel.module_order(MODULES)
    order = "".join(f"{module.name}\n" for module in modules)
    entries = [
        cpio.console(),
        cpio.program("bin/busybox", BUSYBOX.read_bytes()),
        cpio.program("init", (cache.HERE / "host-init.sh").read_bytes()),
        cpio.program("modules/order", order.encode()),
        *(cpio.program(f"modules/{p.name}", p.read_bytes()) for p in modules),
    ]
    path.write_bytes(cpio.archive(entries))


def _ninep(tag: str, path: Path, options: str) -> list[str]:
    return [
        *("-fsdev", f"local,id={tag},path={path},security_model=none{options}"),
        *("-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
    ]


def _port(number: int, fd: int) -> list[str]:
    """A virtio-serial port that writes to a pipe of ours (which has no truncation)."""
    return [
        *("-add-fd", f"fd={fd},set={number}"),
        *("-chardev", f"file,id=port{number},append=on,path=/dev/fdset/{number}"),
        *("-device", f"virtserialport,chardev=port{number},nr={number}"),
    ]
