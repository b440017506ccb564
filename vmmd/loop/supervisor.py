"""What changes a machine: one place, one action at a time.

``perform`` is the only way in. What is legal when stands in
``vmmd.lifecycle``; what a configuration may be in ``vmmd.resources``. Here is
what is left: the phase, the board, and the order of doing things.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import trio

from vmmd import FIRECRACKER_VERSION
from vmmd import actions as a
from vmmd.config import InstanceInfo, VmStateChange
from vmmd.errors import ConfigError, ExitError, HostError
from vmmd.http import render
from vmmd.lifecycle import BOOT_PATH, Phase, refusal
from vmmd.loop.files import HostFile
from vmmd.loop.logger import LoggerUpdateError, parse_level
from vmmd.loop.metrics import Metrics
from vmmd.loop.took import took
from vmmd.resources.drives import patch_drive
from vmmd.resources.fault import ResourceFault
from vmmd.resources.store import VmResources, apply, dropped

if TYPE_CHECKING:
    from vmmd.config import (
        DriveUpdate,
        LoggerConfig,
        NetworkInterfaceConfig,
        NetworkInterfaceUpdate,
    )
    from vmmd.loop.board import Board
    from vmmd.loop.disk import Disk
    from vmmd.loop.lineage import Lineage
    from vmmd.loop.metadata import Metadata
    from vmmd.loop.options import Options
    from vmmd.loop.snapshot_load import Loaded
    from vmmd.loop.snapshots import Progress
    from vmmd.resources.drives import Drive

DEATH_REPORT_DEADLINE_S = 1.0
NO_ROOM = "Internal VMM error: I8042 error: i8042 internal buffer full."


class Supervisor:
    """Configuration, phase and board of one microVM.

    ``nursery`` runs the board's pumps and is cancelled when the process ends;
    it is set before anything is performed.
    """

    nursery: trio.Nursery

    def __init__(self, options: Options) -> None:
        self.options = options
        self.phase = Phase.NOT_STARTED
        self.resources = VmResources()
        self.board: Board | None = None
        self.boot_path = False
        self.loading = False
        """Whether something was to be configured that a snapshot would bring along."""
        self.failure: ExitError | None = None
        self.loaded: Loaded | None = None
        self.lineage: Lineage | None = None
        self.progress: Progress | None = None
        """Of the snapshot that is being written."""
        self.metrics = Metrics(options)
        self.log = options.logger.channel("main", "vmmd::supervisor")
        self._vmm_log = options.logger.channel("main", "vmm")
        self._started = trio.Event()
        self._configured = trio.Event()
        self._open_disk = partial(HostFile.open_disk, warn=self.log.warn)
        self._metadata: Metadata | None = None
        if options.waits_for_requests and options.metadata_text is None:
            self._configured.set()
        self.stopping = trio.Lock()
        """Held by a pause, or by a look for which the guest is stopped."""

    async def perform(self, action: a.Action) -> a.Answer:
        """Carry out one action. ConfigError has the whole fault_message.

        Of changing actions the caller sends one at a time; a GET may come while
        one runs, and sees the state before it. While a config file is carried
        out, all wait.
        """
        if not self._configured.is_set():
            await self._configured.wait()
        self.boot_path |= type(action) in BOOT_PATH
        if (text := refusal(self.phase, action)) is not None:
            raise ConfigError(text)
        if (answer := await self._answer(action)) is None:
            await self._change(action)
        return answer or a.NO_CONTENT

    async def _answer(self, action: a.Action) -> a.Answer | None:
        """What a read comes to, and all that is about metadata; None: a change."""
        match action:
            case a.GetInstanceInfo():
                return render.instance_info(self._info())
            case a.GetVersion():
                return render.version(FIRECRACKER_VERSION)
            case a.GetMachineConfig():
                return render.machine_config(self.resources.machine)
            case a.GetVmConfig():
                return render.vm_config(self.resources)
            case a.GetState() | a.GetSnapshotTargets() | a.GetSnapshotProgress():
                from vmmd.loop.views import view_of  # nobody needs it for a start

                return a.Answer(200, await view_of(self, action))
            case a.GetMmds() | a.PutMmds() | a.PatchMmds():
                served = self.board is None or self.resources.mmds is not None
                return self.metadata().perform(action, served=served)
            case _:
                return None

    async def _change(self, action: a.Action) -> None:
        match action:
            case a.InstanceStart():
                try:
                    await self.start()
                except ConfigError as error:
                    raise ConfigError(f"Start microvm error: {error}") from error
            case a.PatchVm(state):
                await self._pause_or_resume(state)
            case a.SendCtrlAltDel():
                self._ctrl_alt_del()
            case a.PutLogger() | a.PutMetrics() | a.FlushMetrics():
                self._observe(action)
            case a.CreateSnapshot() | a.LoadSnapshot():
                from vmmd.loop.snapshots import perform  # nothing else needs it

                await perform(self, action)
            case a.PatchDrive() | a.PatchNetworkInterface():
                await self._patch_device(action)
            case _:
                self._configure_or_hint(action)

    def _configure_or_hint(self, action: a.Action) -> None:
        try:
            self.configure(action)
        except ResourceFault as fault:
            if fault.hint:
                self.log.warn(fault.hint)
            raise

    async def _patch_device(
        self, action: a.PatchDrive | a.PatchNetworkInterface
    ) -> None:
        match action:
            case a.PatchDrive(update):
                await self._patch_drive(update)
            case a.PatchNetworkInterface(update):
                self._patch_net(update)

    def configure(self, action: a.Action) -> None:
        """One step of configuration before the start.

        Raises ResourceFault, and nothing has changed.
        """
        before = self.resources
        self.resources = self._configured_by(action)
        for file in dropped(before, self.resources):
            file.close()

    def _configured_by(self, action: a.Action) -> VmResources:
        if isinstance(action, a.PutNetworkInterface):
            return self._with_net(action.config)
        if isinstance(action, a.PutMmdsConfig):
            from vmmd.resources.mmds import put_mmds  # few machines have one

            return put_mmds(self.resources, action.config)
        opener = self._open_disk if isinstance(action, a.PutDrive) else HostFile.open
        return apply(self.resources, action, opener)

    def _with_net(self, config: NetworkInterfaceConfig) -> VmResources:
        from vmmd.loop.tap import Tap
        from vmmd.resources.nets import put_net

        return put_net(self.resources, config, Tap.open)

    def metadata(self) -> Metadata:
        """The metadata service, made when it is first asked for."""
        if self._metadata is None:
            from vmmd.loop.metadata import Metadata  # likewise

            self._metadata = Metadata(self.options)
        return self._metadata

    def configured(self) -> None:
        """What the command line names is done: requests are carried out now."""
        self._configured.set()

    async def start(self) -> None:
        """Build the machine and let it run. ConfigError says why it cannot."""
        from vmmd.boot.image import BootError  # a process that loads has no kernel
        from vmmd.loop.start import boot_time_log, build  # not before needed

        log = self.options.logger.channel("main", "vmmd::devices").error
        try:
            board = build(self.resources, log, boot_timer=self.options.boot_timer)
        except BootError as error:
            self.log.debug(error.hint)
            raise
        except HostError as error:
            raise ConfigError(str(error)) from error
        board.on_boot_time = boot_time_log(self.options.logger)
        await self.adopt(board)
        self.let_go()

    async def adopt(self, board: Board) -> None:
        """Serve a board that was built, its guest not running yet.

        ConfigError if the host has no more threads; the board is closed then.
        """
        if self.resources.mmds is not None:
            self.metadata().attach(board.pumps, self.resources.mmds)
        try:
            await board.serve(self.nursery)
        except HostError as error:
            with trio.CancelScope(shield=True):
                await board.close()
            raise ConfigError(str(error)) from error
        self.board = board
        self.metrics.begin(board, self._metadata)
        self.nursery.start_soon(self.metrics.flush_for_ever)
        self._started.set()

    def fail(self, failure: ExitError) -> None:
        """There will be no guest: end the process, once all replies are sent."""
        self.failure = failure
        self._started.set()

    async def wait_end(self) -> int:
        """Wait until the guest has ended by itself; the process's exit code.

        ExitError if there will be none, for its snapshot could not be loaded.
        """
        await self._started.wait()
        if self.failure is not None:
            raise self.failure
        if self.board is None:
            raise RuntimeError("started without a board")
        await self.board.over.wait()
        end = self.board.end
        if end is None:
            raise RuntimeError("over without an end")
        if end.needs_report:
            await self._report_death(self.board)
        self.log.debug(f"The guest has ended: {end}.")
        if (text := end.firecracker_text) is not None:
            thread = f"fc_vcpu {end.vcpu}"
            self.options.logger.channel(thread, "vmm::vstate::vcpu").error(text)
        self._vmm_log.info("Vmm is stopping.")
        return end.exit_code

    async def close(self) -> bool:
        """Take everything down; the pumps have ended. Call it shielded.

        False if a disk could not write all of it out, which the log names.
        """
        lost: tuple[HostError, ...] = ()
        self.metrics.close()
        if self.board is not None:
            if self.board.end is not None:
                self._vmm_log.info("Killing vCPU threads")
            lost = await self.board.close()
        for error in lost:
            self.log.error(f"Data of a drive may be lost: {error}")
        for file in self.resources.files():
            file.close()
        if self.loaded is not None:
            self.loaded.close()
        return not lost

    async def _report_death(self, board: Board) -> None:
        """Log all that is known of a guest that ended by no wish of its own."""
        from vmmd.loop.state_view import vcpus

        board.threads.request_pause()
        with trio.move_on_after(DEATH_REPORT_DEADLINE_S):
            await board.threads.wait_parked()
        for vcpu in vcpus(board):
            self.log.error(f"Death report: {json.dumps(vcpu)}")

    def _info(self) -> InstanceInfo:
        return InstanceInfo(
            self.options.instance_id,
            self.phase.value,
            FIRECRACKER_VERSION,
            render.APP_NAME,
        )

    async def _patch_drive(self, update: DriveUpdate) -> None:
        """Another file for a drive of the running machine, or its limiter."""
        before = self.resources.drives
        after = patch_drive(before, update, self._open_disk)
        for old, new in zip(before, after, strict=True):
            if old.file is not new.file:
                try:
                    await self._replace_file(new)
                except HostError as error:
                    new.file.close()
                    raise ConfigError(str(error)) from error
                old.file.close()
            if old is not new and update.rate_limiter is not None:
                self._disk(new).limit(update.rate_limiter)
        self.resources = replace(self.resources, drives=after)

    async def _replace_file(self, drive: Drive) -> None:
        """Go on with another file behind a drive, and tell the driver."""
        from vmmd.loop.assemble import backing_file, block_name

        await self._disk(drive).replace(backing_file(drive))
        self.running().config_changed(block_name(drive.config.drive_id))

    def _disk(self, drive: Drive) -> Disk:
        """What serves a drive of the running machine."""
        from vmmd.loop.assemble import block_name
        from vmmd.loop.disk import Disk

        name = block_name(drive.config.drive_id)
        disk = self.running().pumps[name]
        if not isinstance(disk, Disk):
            raise TypeError(f"{name} is served by a {type(disk).__name__}")
        return disk

    def _patch_net(self, update: NetworkInterfaceUpdate) -> None:
        """Other rate limiters for an interface of the running machine."""
        from vmmd.loop.assemble import net_name
        from vmmd.loop.net import Nic
        from vmmd.resources.nets import patch_net

        nets = patch_net(self.resources.nets, update)
        nic = self.running().pumps[net_name(update.iface_id)]
        if not isinstance(nic, Nic):
            raise TypeError(f"{update.iface_id} is served by a {type(nic).__name__}")
        nic.limit(update.rx_rate_limiter, update.tx_rate_limiter)
        self.resources = replace(self.resources, nets=nets)

    def _observe(self, action: a.PutLogger | a.PutMetrics | a.FlushMetrics) -> None:
        match action:
            case a.PutMetrics(config):
                self.metrics.open(config.metrics_path)
            case a.FlushMetrics():
                self.metrics.flush()
            case a.PutLogger(config):
                try:
                    self.update_logger(config)
                except LoggerUpdateError as error:
                    raise ConfigError(f"Logger error: {error}") from error

    def update_logger(self, config: LoggerConfig) -> None:
        """Apply ``PUT /logger``. Raises LoggerUpdateError, having changed nothing."""
        level = None if config.level is None else parse_level(config.level.value)
        self.options.logger.update(
            config.log_path,
            level,
            config.show_level,
            config.show_log_origin,
            config.module,
        )

    def running(self) -> Board:
        """The board. RuntimeError before the start, when nobody may ask."""
        if self.board is None:
            raise RuntimeError("the phase says started, but there is no board")
        return self.board

    async def _pause_or_resume(self, state: VmStateChange) -> None:
        board = self.running()
        what = "pause vm" if state is VmStateChange.PAUSED else "resume vm"
        async with self.stopping:
            with took(self.log.info, what):
                if state is VmStateChange.PAUSED and self.phase is Phase.RUNNING:
                    await board.pause()
                    self.phase = Phase.PAUSED
                elif state is VmStateChange.RESUMED and self.phase is Phase.PAUSED:
                    self.let_go()

    def let_go(self) -> None:
        """Let the guest go (on)."""
        self.running().run()
        self.phase = Phase.RUNNING
        self._vmm_log.info("Artificially kick devices")

    def _ctrl_alt_del(self) -> None:
        board = self.running()
        if not board.machine.i8042.ctrl_alt_del():
            raise ConfigError(NO_ROOM)
        board.settled()
