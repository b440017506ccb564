"""Down to any release and up again: nothing changes but what was declared lost."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.records import RING, example, record_classes, records
from tests.helpers.state_file import file_of
from vmmd.cpu.fpu import Xsave
from vmmd.cpu.state import VcpuState
from vmmd.errors import SnapshotError
from vmmd.mmds.state import MmdsState
from vmmd.state.codec import Entry, pack, unpack
from vmmd.state.record import SEMANTIC, Loss, Refusal, record
from vmmd.state.snapshot import decode, encode, parse
from vmmd.state.translate import (
    TranslationError,
    losses,
    reachable,
    translate_down,
    translate_up,
    upgraded,
)
from vmmd.state.versions import CHANGES, RELEASES, version_for
from vmmd.virtio.block import BlockState
from vmmd.virtio.mmio import MmioState
from vmmd.virtio.net import NetState
from vmmd.vm_info import VmInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

CLASSES = record_classes()
ALL = tuple(CLASSES.values())
CHANGING = [cls for kind, cls in CLASSES.items() if hasattr(cls, "DOWNGRADES")]
VCPU: VcpuState = example(VcpuState)
SERIALIZE = (
    "Cannot serialize the microVM state:"
    " A versioned serialization/deserialization error occurred: "
)
MSRS = (
    "A serialization error occured: Cannot serialize MSRs. The uVM state needs to save\n"
    "                 more MSRs than the target snapshot version supports."
)


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:  # noqa: ANN401 (plain values)
    """Paths at which two plain values differ."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for name in one:
            dot = "." if path else ""
            yield from differences(one[name], other[name], f"{path}{dot}{name}")
    elif isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from differences(a, b, f"{path}[{i}]")
    elif one != other:
        yield path


def there_and_back(record: object, release: str) -> tuple[set[str], set[str]]:
    """Paths that changed, and paths declared lost; both empty if it is refused."""
    file = file_of(pack(record, "id"))
    lost = losses(file, release, ALL)
    if any(isinstance(item.loss, Refusal) for item in lost):
        with pytest.raises(TranslationError):
            translate_down(file, release, ALL)
        return set(), set()
    older, again = translate_down(file, release, ALL)
    assert again == lost
    assert older.header.target_version == release
    for entry in older.entries:
        assert entry.version == (version_for(entry.kind, release) or 1)
        assert entry.optional == (version_for(entry.kind, release) == 0)
    if not older.entries:
        assert lost, "a record was dropped without a word"
        return set(), set()
    newest = translate_up(older, ALL)
    assert upgraded(older, ALL).records[0][1] == unpack(newest.entries[0], type(record))
    changed = set(differences(file.entries[0].fields, newest.entries[0].fields))
    return changed, {path for item in lost for path in item.paths}


@pytest.mark.parametrize("cls", [*CHANGING, MmioState])
@settings(max_examples=40)
@given(st.data())
def test_down_and_up_changes_only_what_was_declared(
    cls: type, data: st.DataObject
) -> None:
    record = data.draw(records(cls))
    release = data.draw(st.sampled_from(RELEASES))
    changed, declared = there_and_back(record, release)
    assert changed <= declared


@pytest.mark.parametrize("release", RELEASES)
def test_every_record_goes_to_every_release(release: str) -> None:
    for cls in ALL:
        changed, declared = there_and_back(example(cls), release)
        assert changed <= declared, cls


def lost(record: object, release: str) -> list[str]:
    """Texts of what is lost on the way to a release."""
    return [item.loss.text for item in losses(file_of(pack(record)), release, ALL)]


def test_what_is_lost_is_said_in_firecrackers_words() -> None:
    info = [
        f"Saving to older snapshot version, {what} information will not be saved."
        for what in ("SMT", "CPU template", "boot source")
    ]
    assert lost(example(VmInfo), "1.1.0")[-3:] == info
    assert not lost(dataclasses.replace(example(VmInfo), huge_pages="None"), "1.2.0")
    tsc = "Saving to older snapshot version, TSC freq "
    vcpu = dataclasses.replace(VCPU, tsc_khz=2_445_404)
    assert lost(vcpu, "0.24.0") == [f"{tsc}2445404KHz not included in snapshot."]
    assert not lost(vcpu, "0.25.0")
    vcpu = dataclasses.replace(VCPU, tsc_khz=None)
    assert lost(vcpu, "0.24.0") == [f"{tsc}not available."]
    cache = (
        "Target version does not implement the current cache type."
        ' Defaulting to "unsafe" mode.'
    )
    assert lost(example(BlockState), "0.24.0")[-1] == cache
    assert lost(MmdsState(version="V2", imds_compat=True), "1.0.0")[-1:] == [
        "Target version does not support persisting the MMDS version. The default will"
        " be used when restoring."
    ]
    assert lost(MmdsState(version="V2"), "1.1.0") == []
    assert lost(example(NetState), "1.1.0") == [
        "Saving to older snapshot version, optional MAC address will not be saved."
    ]


def test_what_an_older_file_lacks_is_noted() -> None:
    file = file_of(pack(example(VmInfo)), pack(VCPU, "0"), pack(example(NetState), "n"))
    older, _ = translate_down(file, "0.23.0", ALL)
    loaded = upgraded(older, ALL)
    assert loaded.notes == (
        "SMT field not found in snapshot.",
        "CPU template field not found in snapshot.",
        "Boot source information not found in snapshot.",
        "CPU TSC freq not found in snapshot",
        "Optional MAC address will be set to older version.",
    )
    assert [record_id for record_id, _ in loaded.records] == ["", "0", "n"]
    assert upgraded(file, ALL).notes == ()


@pytest.mark.parametrize(
    ("record", "release", "text"),
    [
        (
            dataclasses.replace(VCPU, msrs=((1, 1),) * 257),
            "1.1.0",
            SERIALIZE + MSRS,
        ),
        (
            dataclasses.replace(VCPU, msrs=()),
            "1.1.0",
            f"{SERIALIZE}A serialization error occured: Cannot serialize MSRs because"
            " the MSR list is empty",
        ),
        (
            dataclasses.replace(VCPU, xsave=Xsave(region=bytes(11_008))),
            "1.11.0",
            f"{SERIALIZE}A serialization error occured: Cannot serialize 11008 bytes of"
            " XSAVE state, only 4096.",
        ),
        (
            dataclasses.replace(example(NetState), mtu=9000),
            "1.15.0",
            f"{SERIALIZE}A user generated semantic error occured: Target version does"
            " not support persisting the MTU of an interface.",
        ),
        (
            dataclasses.replace(RING, event_idx=True),
            "0.25.0",
            "The virtio devices use a features that is incompatible with older versions"
            " of Firecracker: notification suppression",
        ),
    ],
)
def test_what_nobody_may_lose_is_refused(
    record: object, release: str, text: str
) -> None:
    file = file_of(pack(record, "id"))
    with pytest.raises(TranslationError) as caught:
        translate_down(file, release, ALL)
    assert str(caught.value) == text
    above = RELEASES[RELEASES.index(release) + 1]
    assert translate_down(file, above, ALL)[1] == ()


def test_the_first_refusal_in_the_files_order_is_the_one_told() -> None:
    net = dataclasses.replace(example(NetState), mtu=9000)
    vcpu = dataclasses.replace(VCPU, msrs=())
    for records_, text in (((vcpu, net), "MSR"), ((net, vcpu), "MTU")):
        file = file_of(*map(pack, records_))
        assert len(losses(file, "0.23.0", ALL)) >= 2
        with pytest.raises(TranslationError, match=text):
            translate_down(file, "0.23.0", ALL)


def test_a_loss_names_the_record_and_the_place() -> None:
    ring = dataclasses.replace(RING, signalled_used=5)
    state = dataclasses.replace(example(MmioState), queues=(RING, ring))
    (item,) = losses(file_of(pack(state, "net/eth0")), "0.25.0", ALL)
    assert (item.kind, item.id) == ("mmio", "net/eth0")
    assert item.paths == ("queues[1].signalled_used", "queues[1].signalled_valid")
    assert str(item).startswith("mmio net/eth0: queues[1].signalled_used, queues[1].")


def test_unknown_records_are_left_out_if_they_may_be() -> None:
    odd = Entry("later", "x", 3, {"a": 1}, optional=True)
    file = file_of(odd, pack(VCPU, "0"))
    assert upgraded(file, ALL).records == (("0", VCPU),)
    assert translate_down(file, "1.5.0", ALL)[0].entries[0] == odd
    assert translate_up(file, ALL).entries[0] == odd
    with pytest.raises(SnapshotError, match="later x: records of this kind are not"):
        upgraded(file_of(dataclasses.replace(odd, optional=False)), ALL)


def test_newer_versions_are_refused() -> None:
    newer = dataclasses.replace(pack(VCPU, "0"), version=4)
    with pytest.raises(SnapshotError, match="vcpu 0: version 4 is newer than 3"):
        upgraded(file_of(newer), ALL)
    inner = dict(pack(VCPU, "0").fields)
    inner["mp_state"] = {**inner["mp_state"], "@": "kvm_mp_state/2"}
    with pytest.raises(SnapshotError, match=r"kvm_mp_state: version 2 is not 1 to 1"):
        upgraded(file_of(Entry("vcpu", "0", 3, inner)), ALL)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (Entry("later", "x", 3, {"a": 1.5}, optional=True), "later x: holds a float"),
        (Entry("vm_info", "", 3, {"smt": 1.5}), "vm_info: holds a float"),
    ],
)
def test_what_is_not_plain_is_refused_where_a_file_was_only_parsed(
    entry: Entry, said: str
) -> None:
    data = encode(file_of(entry))
    with pytest.raises(SnapshotError, match=f"^{said}"):
        upgraded(parse(data), ALL)
    with pytest.raises(SnapshotError, match=f"^{said}"):
        decode(data)


@pytest.mark.parametrize("cls", CHANGING)
@settings(max_examples=60)
@given(st.data())
def test_a_file_that_lies_about_its_version_is_told(
    cls: type, data: st.DataObject
) -> None:
    entry = pack(example(cls), "id")
    fields = dict(entry.fields)
    for name in data.draw(st.sets(st.sampled_from(sorted(fields)), max_size=2)):
        del fields[name]
    if data.draw(st.booleans()):
        fields[data.draw(st.sampled_from(sorted(entry.fields)))] = data.draw(
            st.sampled_from([None, 7, "x", (), {}, {"@": 5}, {"@": "ring/9"}])
        )
    version = data.draw(st.integers(1, entry.version))
    lying = Entry(entry.kind, "id", version, fields)
    try:
        loaded = upgraded(file_of(lying), ALL)
    except SnapshotError as error:
        assert str(error).startswith(f"{entry.kind} id: ")  # noqa: PT017 (either may be)
    else:
        assert isinstance(loaded.records[0][1], cls)


@record("gadget", 1)
class Gadget:
    """A device that came with some release."""

    level: int = 0


ABSENT = "Target version does not implement the virtio-gadget device."


@pytest.mark.parametrize(
    ("loss", "kept"),
    [
        (Refusal(("level",), ABSENT, SEMANTIC), None),
        (Loss(("level",), ABSENT), ()),
        (None, (Entry("gadget", "g", 1, {"level": 3}, optional=True),)),
    ],
)
def test_a_kind_that_the_target_does_not_know(
    loss: Loss | None, kept: tuple[Entry, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CHANGES, "gadget", ("1.4.0",))
    if loss is not None:
        steps = {1: lambda _fields: (None, (loss,))}
        monkeypatch.setattr(Gadget, "DOWNGRADES", steps, raising=False)
    entry = pack(Gadget(level=3), "g")
    assert translate_down(file_of(entry), "1.4.0", [Gadget])[0].entries == (entry,)
    assert [item.loss for item in losses(file_of(entry), "1.3.0", [Gadget])] == (
        [] if loss is None else [loss]
    )
    if kept is None:
        with pytest.raises(TranslationError) as caught:
            translate_down(file_of(entry), "1.3.0", [Gadget])
        assert str(caught.value) == SERIALIZE + SEMANTIC + ABSENT
        return
    older, _ = translate_down(file_of(entry), "1.3.0", [Gadget])
    assert older.entries == kept
    assert upgraded(older, [Gadget]).records == (
        (("g", Gadget(level=3)),) if kept else ()
    )


def test_records_inside_records_are_found() -> None:
    found = reachable([VcpuState])
    assert {"vcpu", "kvm_sregs", "kvm_segment", "kvm_cpuid_entry2"} <= found.keys()
    assert "ring" not in found
