"""A machine's configuration, to a record and back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.config import BootSourceConfig, CpuTemplateName, HugePages, MachineConfig
from vmmd.errors import SnapshotError
from vmmd.resources.boot import BootSource
from vmmd.resources.store import VmResources
from vmmd.vm_info import VmInfo, boot_source, machine_config, vm_info

machines = st.builds(
    MachineConfig,
    vcpu_count=st.integers(1, 32),
    mem_size_mib=st.integers(1, 1 << 20),
    smt=st.booleans(),
    cpu_template=st.none() | st.sampled_from(CpuTemplateName),
    track_dirty_pages=st.booleans(),
    huge_pages=st.sampled_from(HugePages),
)
sources = st.builds(
    BootSourceConfig,
    kernel_image_path=st.text(),
    initrd_path=st.none() | st.text(),
    boot_args=st.none() | st.text(),
)


@given(machines, sources)
def test_there_and_back(machine: MachineConfig, source: BootSourceConfig) -> None:
    resources = VmResources(machine, BootSource(source, None, None))
    info = vm_info(resources)
    track = machine.track_dirty_pages
    assert machine_config(info, track_dirty_pages=track) == machine
    assert boot_source(info).config == source


def test_tracking_is_not_remembered() -> None:
    machine = MachineConfig(track_dirty_pages=True)
    info = vm_info(VmResources(machine))
    assert not machine_config(info, track_dirty_pages=False).track_dirty_pages


PLAIN = VmInfo(vcpu_count=1, mem_size_mib=16)


@pytest.mark.parametrize(
    ("field", "info"),
    [
        ("cpu_template", replace(PLAIN, cpu_template="odd")),
        ("huge_pages", replace(PLAIN, huge_pages="odd")),
    ],
)
def test_a_name_that_is_not_known(field: str, info: VmInfo) -> None:
    with pytest.raises(SnapshotError, match=f"vm_info: {field}: 'odd' is not known"):
        machine_config(info, track_dirty_pages=False)
