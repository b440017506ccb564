"""Merging updates into the machine's configuration, and its limits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.config import (
    BalloonConfig,
    CpuTemplateName,
    HugePages,
    MachineConfig,
    MachineConfigUpdate,
)
from vmmd.resources.fault import ResourceFault
from vmmd.resources.machine import as_update, update_machine
from vmmd.templates import CustomCpuTemplate

VCPUS = (
    "Machine config error: The number of vCPUs must be greater than 0, less than 32"
    " and must be 1 or an even number if SMT is enabled."
)
MEMORY = (
    "Machine config error: The memory size (MiB) is either 0, or not a multiple of the"
    " configured page size."
)
BALLOON = (
    "Machine config error: The memory size (MiB) is smaller than the previously set"
    " balloon device target size."
)
DEFAULT = MachineConfig()


def refused(old: MachineConfig, update: MachineConfigUpdate) -> str:
    """The text of the refusal."""
    with pytest.raises(ResourceFault) as caught:
        update_machine(old, update, None)
    return str(caught.value)


@pytest.mark.parametrize("count", [0, 33, 255])
def test_vcpu_counts_out_of_range(count: int) -> None:
    assert refused(DEFAULT, MachineConfigUpdate(vcpu_count=count)) == VCPUS


@pytest.mark.parametrize("count", range(1, 33))
def test_smt_wants_one_or_an_even_number(count: int) -> None:
    update = MachineConfigUpdate(vcpu_count=count, smt=True)
    if count == 1 or count % 2 == 0:
        assert update_machine(DEFAULT, update, None).vcpu_count == count
    else:
        assert refused(DEFAULT, update) == VCPUS
    plain = MachineConfigUpdate(vcpu_count=count)
    assert update_machine(DEFAULT, plain, None).vcpu_count == count


def test_smt_is_checked_against_the_count_there_is() -> None:
    three = MachineConfig(vcpu_count=3)
    assert refused(three, MachineConfigUpdate(smt=True)) == VCPUS
    threads = MachineConfig(vcpu_count=2, smt=True)
    assert refused(threads, MachineConfigUpdate(vcpu_count=5)) == VCPUS


def test_memory() -> None:
    assert refused(DEFAULT, MachineConfigUpdate(mem_size_mib=0)) == MEMORY
    huge = MachineConfigUpdate(mem_size_mib=63, huge_pages=HugePages.HUGETLBFS_2M)
    assert refused(DEFAULT, huge) == MEMORY
    odd = MachineConfig(mem_size_mib=63)
    pages = MachineConfigUpdate(huge_pages=HugePages.HUGETLBFS_2M)
    assert refused(odd, pages) == MEMORY
    most = (1 << 64) - 1
    update = MachineConfigUpdate(mem_size_mib=most)
    assert update_machine(DEFAULT, update, None).mem_size_mib == most


def test_memory_holds_the_balloon() -> None:
    balloon = BalloonConfig(64, True)
    update = MachineConfigUpdate(mem_size_mib=64)
    assert update_machine(DEFAULT, update, balloon).mem_size_mib == 64
    with pytest.raises(ResourceFault) as caught:
        update_machine(DEFAULT, MachineConfigUpdate(mem_size_mib=63), balloon)
    assert str(caught.value) == BALLOON


def test_the_count_is_looked_at_first() -> None:
    assert refused(DEFAULT, MachineConfigUpdate(0, 0)) == VCPUS


def test_a_put_resets_all_but_the_template() -> None:
    old = MachineConfig(4, 64, True, CpuTemplateName.T2, True, HugePages.HUGETLBFS_2M)
    put = update_machine(old, as_update(MachineConfig(1, 63)), None)
    assert put == MachineConfig(1, 63, cpu_template=CpuTemplateName.T2)


def test_templates_replace_each_other() -> None:
    custom = MachineConfig(cpu_template=CustomCpuTemplate())
    named = MachineConfigUpdate(cpu_template=CpuTemplateName.C3)
    none = MachineConfigUpdate(cpu_template=CpuTemplateName.NONE)
    kept = MachineConfigUpdate(vcpu_count=2)
    assert update_machine(custom, named, None).cpu_template is CpuTemplateName.C3
    assert update_machine(custom, none, None).cpu_template is None
    assert update_machine(custom, kept, None).cpu_template == CustomCpuTemplate()


@given(
    st.builds(
        MachineConfigUpdate,
        st.none() | st.integers(0, 40),
        st.none() | st.integers(0, 70),
        st.none() | st.booleans(),
        st.none() | st.sampled_from(CpuTemplateName),
        st.none() | st.booleans(),
        st.none() | st.sampled_from(HugePages),
    )
)
def test_an_update_changes_what_it_names(update: MachineConfigUpdate) -> None:
    old = MachineConfig(2, 64)
    try:
        new = update_machine(old, update, None)
    except ResourceFault:
        return
    names = ("vcpu_count", "mem_size_mib", "smt", "track_dirty_pages", "huge_pages")
    given_values = {
        name: getattr(update, name)
        for name in names
        if getattr(update, name) is not None
    }
    template = update.cpu_template
    if template is CpuTemplateName.NONE:
        template = None
    assert new == replace(old, **given_values, cpu_template=template)
