"""The metadata service in a process: the API's verbs, files, an interface."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.helpers.daemon import daemon
from tests.helpers.net_model import HEADER, frame
from tests.helpers.nic import BUFFER, SocketTap, pumped
from tests.helpers.options import options
from tests.helpers.tcp_client import TcpClient
from vmmd import actions as a
from vmmd.config import MmdsConfig, MmdsVersion
from vmmd.errors import ConfigError
from vmmd.loop.metadata import Metadata
from vmmd.loop.supervisor import Supervisor
from vmmd.mmds.frames import (
    PROTOCOL_TCP,
    Packet,
    build_packet,
    parse_frame,
    parse_packet,
)
from vmmd.mmds.responder import MAC
from vmmd.mmds.segment import Segment, build_segment, parse_segment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.nic import Guest

SERVICE, GUEST = b"\xa9\xfe\xa9\xfe", b"\x0a\0\0\x02"
NOT_INITIALIZED = "MMDS error: The MMDS data store is not initialized."
LIMIT = "MMDS limit exceeded error: The MMDS patch request doesn't fit."
REASON = "The MMDS patch request doesn't fit."
PREFIX = "RunWithoutApiError error: Failed to build MicroVM from Json: "
EXIT = "RunWithApiError error: Failed to build MicroVM: Populating MMDS from file"


def metadata(limit: int = 100) -> Metadata:
    return Metadata(replace(options(), mmds_size_limit=limit))


def test_the_verbs_of_the_api() -> None:
    made = metadata()
    assert made.perform(a.GetMmds(), served=True) == a.Answer(200, {})
    with pytest.raises(ConfigError, match="not initialized"):
        made.perform(a.PatchMmds({"a": 1}), served=True)
    assert made.perform(a.PutMmds({"b": 1}), served=True) == a.NO_CONTENT
    assert made.perform(a.PatchMmds({"a": 1}), served=True) == a.NO_CONTENT
    assert made.perform(a.GetMmds(), served=True) == a.Answer(200, {"a": 1, "b": 1})
    with pytest.raises(ConfigError) as caught:
        made.perform(a.PutMmds("x" * 99), served=True)
    assert (str(caught.value), caught.value.status) == (LIMIT, 413)


@pytest.mark.parametrize(
    "action", [a.GetMmds(), a.PutMmds(1), a.PatchMmds(1)], ids=lambda x: str(type(x))
)
def test_what_no_interface_serves_is_refused(action: a.Action) -> None:
    with pytest.raises(ConfigError) as caught:
        metadata().perform(action, served=False)
    assert str(caught.value) == NOT_INITIALIZED


async def test_the_supervisor_makes_the_store_when_it_is_asked_for() -> None:
    supervisor = Supervisor(options())
    await supervisor.perform(a.PutMmds({"a": 1}))
    answer = await supervisor.perform(a.GetMmds())
    assert answer == a.Answer(200, {"a": 1})
    config = MmdsConfig(MmdsVersion.V2, ("eth0",), None, False)
    with pytest.raises(ConfigError, match="MMMDS config error: The list of"):
        await supervisor.perform(a.PutMmdsConfig(config))
    await supervisor.close()


async def ask(guest: Guest, client: TcpClient) -> None:
    """Have a client in the guest talk to the service, until the client is done."""
    sent = received = 0
    while not client.done:
        for segment in client.segments(0):
            guest.rig.send(packet(segment), 0x6000)
            sent += 1
            guest.kick.signal()
            await guest.until(sent=sent)
        while guest.rig.rx.used_index() > received:
            client.receive(segment_at(guest, received), 0)
            received += 1
        client.drain()


def packet(segment: Segment) -> bytes:
    payload = build_segment(segment, GUEST, SERVICE)
    return frame(build_packet(Packet(GUEST, SERVICE, PROTOCOL_TCP, payload)), to=MAC)


def segment_at(guest: Guest, number: int) -> Segment:
    """The segment in a receive buffer of 2 KiB, whose header says nothing."""
    data = guest.rig.memory.read(BUFFER + number * 2048, 2048)
    assert data[:10] == bytes(10)
    ethernet = parse_frame(data[HEADER:])
    assert ethernet.source == MAC
    return parse_segment(parse_packet(ethernet.payload))


async def test_an_interface_answers_for_the_service() -> None:
    made = metadata()
    made.perform(a.PutMmds({"k": "value"}), served=True)
    config = MmdsConfig(MmdsVersion.V1, ("eth0",), "169.254.169.254", False)
    pair = SocketTap()
    async with pumped(pair) as guest:
        made.attach({"net/eth0": guest.nic}, config)
        guest.offer(12)
        client = TcpClient(b"GET /k HTTP/1.1\r\n\r\n", close_after=1)
        await ask(guest, client)
        assert client.read.startswith(b"HTTP/1.1 200 \r\n")
        assert client.read.endswith(b"\r\n\r\nvalue")
        assert guest.nic.device.save().mmds_ipv4 == SERVICE
        counted = made.statistics()
        assert (counted["connections_created"], counted["rx_no_token"]) == (1, 1)
        assert counted["rx_accepted"] >= counted["tx_frames"] > 0
        with pytest.raises(BlockingIOError):
            pair.far.recv(1)


@pytest.mark.parametrize(
    ("text", "arguments", "error", "debug"),
    [
        (
            '{"k": "xxxxxx"}',
            ("--mmds-size-limit", "9"),
            f"{EXIT} failed: {REASON}..",
            "RunWithApi(BuildMicroVmError(PopulateMmds(DataStoreLimitExceeded)))",
        ),
        (
            "{",
            (),
            "MMDS error: metadata provided not valid json: EOF while parsing an object",
            "MMDS error: metadata provided not valid json: EOF while parsing an object",
        ),
    ],
)
def test_a_file_of_metadata_that_cannot_be(
    tmp_path: Path, text: str, arguments: tuple[str, ...], error: str, debug: str
) -> None:
    (tmp_path / "meta").write_text(text)
    with daemon(tmp_path, "--metadata", "meta", *arguments) as vmm:
        assert vmm.wait() == 1
        assert error in vmm.stdout()
        assert vmm.stderr().startswith(f"Error: {debug}")
        assert vmm.stderr().count("\n") == 1


def test_a_file_of_metadata_is_there_from_the_first_request_on(tmp_path: Path) -> None:
    (tmp_path / "meta").write_text('{"b": 1e3, "a": "\\u00e9"}')
    with daemon(tmp_path, "--metadata", "meta") as vmm:
        assert vmm.api.ok("GET", "/mmds") == {"a": "é", "b": 1000.0}
        assert "Successfully added metadata to mmds from file" in vmm.stdout()


@pytest.mark.parametrize(
    ("more", "limit", "text", "debug"),
    [
        (
            {"mmds-config": {"network_interfaces": ["n"]}},
            "99",
            "MMDS config error: The list of network interface IDs provided",
            "ParseFromJson(MmdsConfig(InvalidNetworkInterfaceId))",
        ),
        (
            {},
            "1",
            f"MMDS error: {REASON}",
            "ParseFromJson(Mmds(DataStoreLimitExceeded))",
        ),
    ],
)
def test_a_config_file_with_metadata(
    tmp_path: Path, more: dict[str, object], limit: str, text: str, debug: str
) -> None:
    (tmp_path / "meta").write_text("{}")
    (tmp_path / "kernel").write_bytes(struct.pack("<I", 0) * 99)
    config = {"boot-source": {"kernel_image_path": "kernel"}, "drives": []} | more
    (tmp_path / "config").write_text(json.dumps(config))
    arguments = ("--metadata", "meta", "--mmds-size-limit", limit)
    with daemon(tmp_path, "--no-api", "--config-file", "config", *arguments) as vmm:
        assert vmm.wait() == 1
        text = f"Configuration for VMM from one single json failed: {text}"
        assert f"{PREFIX}{text}" in vmm.stdout()
        assert debug in vmm.stderr()
