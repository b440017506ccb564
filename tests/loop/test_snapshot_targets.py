"""How a release is shown to a client."""

from __future__ import annotations

from tests.helpers.state_file import file_of
from vmmd.loop.snapshot_targets import shown
from vmmd.saved import RECORDS
from vmmd.state.codec import pack
from vmmd.state.outlook import outlook
from vmmd.vm_info import VmInfo


def test_losses_and_refusals_as_json() -> None:
    file = file_of(pack(VmInfo(vcpu_count=1, mem_size_mib=64, huge_pages="2M")))
    old, new = outlook(file, RECORDS, ("1.1.0", "1.16.0"))
    assert shown(new) == {"version": "1.16.0", "refusal": None, "losses": []}
    answer = shown(old)
    assert isinstance(answer, dict)
    assert answer["refusal"] == old.refused
    losses = answer["losses"]
    assert isinstance(losses, list)
    assert len(losses) == len(old.lost) > 0
    for loss, item in zip(losses, old.lost, strict=True):
        assert loss == {
            "record": "vm_info",
            "id": "",
            "fields": [*item.paths],
            "text": item.loss.text,
        }
