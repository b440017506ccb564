"""``vmmd run``: boot one microVM in the foreground, its console on this terminal."""

from __future__ import annotations

import argparse
import json
import re
import sys
from typing import TYPE_CHECKING

from vmmd.cli.interface import IFACE_ID, OWN_TAP, Interface, add_option, interface
from vmmd.errors import ExitError, VmmdError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmmd.loop.options import Options
    from vmmd.snapshot_params import SnapshotLoadParams

DEFAULT_CMDLINE = "console=ttyS0 panic=1"
_SIZE = re.compile(r"(\d+)\s*([mg])(?:i?b)?", re.IGNORECASE)
_USAGE_EXIT_CODE = 2
_UNIT_MIB = {"m": 1, "g": 1024}


def main(argv: Sequence[str]) -> int:
    """Run the command; the exit code is the guest's end's (0: it powered off)."""
    arguments = _parser().parse_args(argv)
    if (text := _misused(arguments)) is not None:
        print(f"vmmd run: {text}", file=sys.stderr)
        return _USAGE_EXIT_CODE
    from vmmd.loop.daemon import run

    listener = None
    if arguments.api_sock is not None:
        import socket

        from vmmd.cli.listen import listen

        listener = socket.socket(fileno=listen(arguments.api_sock).detach())
    try:
        with interface(arguments.net, _cmdline_before(arguments)) as net:
            return run(_options(arguments, net), listener)
    except ExitError as error:
        print(f"vmmd run: {_plain(error)}", file=sys.stderr)
        return error.exit_code
    except VmmdError as error:
        print(f"vmmd run: {error}", file=sys.stderr)
        return 1


def _plain(error: ExitError) -> str:
    """What went wrong, in our own words where there are any."""
    cause = error.__cause__
    hint = getattr(cause, "hint", "")
    return hint or str(cause or error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vmmd run",
        description="Boot one microVM in the foreground, or go on from a snapshot of "
        "one, with its console.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--kernel", help="vmlinux (ELF) or bzImage")
    what.add_argument(
        "--restore", metavar="DIR", help="go on from the snapshot in DIR instead"
    )
    parser.add_argument("--initrd", help="initial RAM file system")
    parser.add_argument(
        "--drive",
        action="append",
        default=[],
        metavar="PATH[,ro]",
        help="a disk image or block device; repeat for more; with --restore ID=PATH: "
        "where that drive is now",
    )
    parser.add_argument("--root", action="store_true", help="boot from the first drive")
    parser.add_argument("--mem", type=_mem_size_mib, default=256, metavar="256M")
    parser.add_argument("--cpus", type=int, default=1, metavar="1..32")
    parser.add_argument(
        "--cmdline", default=DEFAULT_CMDLINE, help=f'default: "{DEFAULT_CMDLINE}"'
    )
    add_option(parser)
    parser.add_argument("--api-sock", help="serve the API there too")
    parser.add_argument("--log-path", default="/dev/null", help="default: no log")
    parser.add_argument("--boot-timer", action="store_true", help="log the boot time")
    parser.add_argument(
        "--track-dirty-pages", action="store_true", help="for snapshots that are diffs"
    )
    _add_restore(parser.add_argument_group("with --restore"))
    return parser


def _add_restore(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--no-resume", action="store_true", help="stay paused until the API resumes it"
    )
    group.add_argument(
        "--tap",
        action="append",
        default=[],
        metavar="IFACE=DEV",
        help="the tap of that interface now",
    )
    group.add_argument(
        "--clock-realtime",
        action="store_true",
        help="let the guest's clock catch up with the time that it was not there",
    )


def _mem_size_mib(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a size: give a number and M or G, such as 256M"
        )
    return int(match[1]) * _UNIT_MIB[match[2].lower()]


def _options(arguments: argparse.Namespace, net: Interface) -> Options:
    from vmmd.loop.logger import Logger
    from vmmd.loop.options import Options

    logger = Logger()
    logger.update(log_path=arguments.log_path)
    return Options(
        logger=logger,
        instance_id=logger.instance_id,
        api_sock=arguments.api_sock or "",
        api_enabled=False,
        config_text=None if arguments.restore else json.dumps(_config(arguments, net)),
        metadata_text=None,
        metrics_path=None,
        boot_timer=arguments.boot_timer,
        enable_pci=False,
        max_payload_size=51200,
        mmds_size_limit=51200,
        start_time_us=None,
        start_time_cpu_us=None,
        parent_cpu_time_us=None,
        restore=_snapshot(arguments, net) if arguments.restore else None,
    )


def _misused(arguments: argparse.Namespace) -> str | None:
    """What does not go together, and the way out."""
    if arguments.restore:
        for option, given in (("drive", "ID=PATH"), ("tap", "IFACE=DEV")):
            for text in getattr(arguments, option):
                if "=" not in text:
                    return f"--{option} {text}: with --restore give {given}"
        taps = [text for text in arguments.tap if text.startswith(f"{IFACE_ID}=")]
        if taps and arguments.net is not None:
            return f"--net and --tap {taps[0]} are for one interface: give one of them"
    elif arguments.tap or arguments.no_resume or arguments.clock_realtime:
        return "--tap, --no-resume and --clock-realtime are of --restore DIR"
    if arguments.no_resume and arguments.api_sock is None:
        return "--no-resume: give --api-sock too, else nothing can resume the guest"
    return None


def _cmdline_before(arguments: argparse.Namespace) -> str | None:
    """Of a snapshot whose network is to be made again, the guest's command line."""
    if not arguments.restore or arguments.net != OWN_TAP:
        return None
    from vmmd.cli.snapshot.files import folder, load
    from vmmd.saved import RECORDS, saved_of
    from vmmd.state.translate import upgraded

    found = upgraded(load(folder(arguments.restore).state), RECORDS)
    return saved_of(found.records).info.boot_args or ""


def _snapshot(arguments: argparse.Namespace, net: Interface) -> SnapshotLoadParams:
    """The snapshot to go on from, and what is elsewhere now."""
    from vmmd import snapshot_params as p
    from vmmd.cli.snapshot.files import folder, load

    files = folder(arguments.restore)
    load(files.state)  # says the way out where the load itself says Firecracker's text
    drives, taps = (
        [text.split("=", 1) for text in texts]
        for texts in (arguments.drive, arguments.tap)
    )
    if net.config:
        taps.append([net.config["iface_id"], net.config["host_dev_name"]])
    return p.SnapshotLoadParams(
        snapshot_path=files.state,
        mem_backend=p.MemBackendConfig(files.memory, p.MemBackendType.FILE),
        track_dirty_pages=arguments.track_dirty_pages,
        resume_vm=not arguments.no_resume,
        network_overrides=tuple(p.NetworkOverride(*each) for each in taps),
        vsock_override=None,
        clock_realtime=arguments.clock_realtime,
        drive_overrides=tuple(p.DriveOverride(*each) for each in drives),
    )


def _config(arguments: argparse.Namespace, net: Interface) -> dict[str, object]:
    """The command's arguments as the config file that says the same."""
    line = f"{arguments.cmdline} {net.cmdline}".rstrip()
    boot = {"kernel_image_path": arguments.kernel, "boot_args": line}
    if arguments.initrd is not None:
        boot["initrd_path"] = arguments.initrd
    return {
        "machine-config": {
            "vcpu_count": arguments.cpus,
            "mem_size_mib": arguments.mem,
            "track_dirty_pages": arguments.track_dirty_pages,
        },
        "boot-source": boot,
        "drives": [
            _drive(number, text, root=arguments.root and number == 0)
            for number, text in enumerate(arguments.drive)
        ],
        "network-interfaces": [net.config] if net.config else [],
    }


def _drive(number: int, text: str, *, root: bool) -> dict[str, object]:
    path = text.removesuffix(",ro")
    return {
        "drive_id": f"drive{number}",
        "path_on_host": path,
        "is_root_device": root,
        "is_read_only": path != text,
        "cache_type": "Writeback",
    }
