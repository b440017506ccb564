"""Network interfaces: the pump between a device's rings and its tap.

One look serves both rings, whatever it was that woke it: the driver's kick, the
tap, a limiter's time, the metadata service's. Each has a task of its own that
waits, and then looks by itself, so that a wake costs one task switch and arms one
descriptor; what nobody wants is not waited for. An idle interface costs no wake.
"""

from __future__ import annotations

import errno
import math
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from vmmd.errors import HostError
from vmmd.limiter import UNLIMITED, cold
from vmmd.loop.tap import Tap
from vmmd.virtio.net import NetDevice, NetState, Stop

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmmd.config import NetworkInterfaceConfig, RateLimiterConfig
    from vmmd.limiter import LimiterState
    from vmmd.loop.detour import Detour, Responder
    from vmmd.loop.eventfd import EventFd
    from vmmd.loop.pump import Transport
    from vmmd.loop.throttle import Throttle
    from vmmd.resources.nets import Net

DETOURS_A_LOOK = 16  # most cost Python some 30 us, and a look is to take 1 ms
_LOOK_NS = 1_000_000  # what the guest asks for at once may cost far more
_NS_PER_S = 1_000_000_000
_GONE = "it was deleted: the guest has no network until it is replaced"
_DOWN = "set it up: `ip link set {} up`"


class Nic:
    """Serves one interface from one tap; owns the tap.

    ``log`` takes the one line that a broken ring, a tap that went or one that
    came back is worth.
    """

    def __init__(self, device: NetDevice, tap: Tap, log: Callable[[str], None]) -> None:
        self.device = device
        self.tap = tap
        self._log = log
        self._rx = self._tx = Stop.EMPTY
        self._rx_throttle: Throttle | None = None
        self._tx_throttle: Throttle | None = None
        self._detour: Detour | None = None
        self._quiesced = self._serving = self._limited = False
        self._tap_gone = False
        self._tap_down = 0  # the errno that was told of, until it is back
        self._own_signals = 0
        self._transport: Transport | None = None
        self._kick: EventFd | None = None
        self._alarm = trio.CancelScope()
        self._read = trio.lowlevel.ParkingLot()
        self._write = trio.lowlevel.ParkingLot()
        device.on_active = self._set_offloads
        self._set_offloads()

    # What the board asks

    @property
    def busy(self) -> bool:
        """Never: a frame is moved at once or stays where it is."""
        return False

    async def pump(self, transport: Transport, kick: EventFd) -> None:
        """Serve the device until cancelled.

        Pulls before it waits: what a restore left in the rings needs no kick.
        """
        self._transport, self._kick = transport, kick
        self._take_limiters()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._on_readable)
            nursery.start_soon(self._on_writable)
            nursery.start_soon(self._on_alarm)
            await self._on_kick(kick)

    async def quiesce(self) -> None:
        """Take nothing more from the rings or the tap."""
        self._quiesced = True
        self._keep_limiters()

    async def idle(self) -> None:
        """Nothing is ever held."""

    def resume(self) -> None:
        """Go on after :meth:`quiesce`, with a look at the rings first."""
        self._quiesced = False
        self._ring()

    async def sync(self) -> None:
        """There is nothing to write out; the limiters' time has gone on."""
        self._keep_limiters()

    async def aclose(self) -> None:
        """After the pump: close the tap."""
        self.tap.close()

    # What the API and the metadata service ask

    def limit(self, rx: RateLimiterConfig | None, tx: RateLimiterConfig | None) -> None:
        """What a PATCH asks of the rate limiters, from the next frame on."""
        self._take_limiters()
        self._rx_throttle = _updated(self._rx_throttle, rx)
        self._tx_throttle = _updated(self._tx_throttle, tx)
        self.device.limit_rx(UNLIMITED, UNLIMITED)
        self.device.limit_tx(UNLIMITED, UNLIMITED)
        self.device.take_used_rx()  # what came before a limiter is not its to count
        self.device.take_used_tx()
        self._keep_limiters()
        self._ring()

    def answer_by(self, responder: Responder | None, ipv4: bytes | None) -> None:
        """Have ``responder`` answer frames for ``ipv4`` in the tap's place."""
        from vmmd.loop.detour import Detour  # few interfaces have one

        self._detour = None if responder is None else Detour(self.device, responder)
        self.device.detour(None if responder is None else ipv4)

    # Tasks: each waits for one thing, then looks

    async def _on_kick(self, kick: EventFd) -> None:
        await self._serve()
        while True:
            signals = await kick.wait()
            if signals > self._own_signals:
                self._count_kick()
            self._own_signals = 0
            await self._serve()

    async def _on_readable(self) -> None:
        while True:
            if self._rx is not Stop.WOULD_BLOCK or self._quiesced:
                await self._read.park()
            else:
                await trio.lowlevel.wait_readable(self.tap.fd)
                self.device.rx_tap_event_count += 1
                await self._serve()

    async def _on_writable(self) -> None:
        while True:
            if self._tx is not Stop.WOULD_BLOCK or self._quiesced:
                await self._write.park()
            else:
                await trio.lowlevel.wait_writable(self.tap.fd)
                await self._serve()

    async def _on_alarm(self) -> None:
        while True:
            with self._alarm:
                await trio.sleep_forever()
            self._alarm = trio.CancelScope()  # before a look sets its time
            self.device.rx_event_rate_limiter_count += self._rx is Stop.THROTTLED
            self.device.tx_rate_limiter_event_count += self._tx is Stop.THROTTLED
            await self._serve()

    def _count_kick(self) -> None:
        """One eventfd serves both queues: who waits for buffers was meant."""
        if self._rx is Stop.NO_BUFFERS:
            self.device.rx_queue_event_count += 1
        else:
            self.device.tx_queue_event_count += 1

    def _ring(self) -> None:
        if self._kick is not None:
            self._own_signals += 1
            self._kick.signal()

    # A look

    async def _serve(self) -> None:
        """Look until there is nothing to do at once. One task at a time does:
        what another came for, it finds."""
        if self._serving:
            return
        self._serving = True
        try:
            while self._look():
                await trio.lowlevel.checkpoint()
        finally:
            self._serving = False

    def _look(self) -> bool:
        """Move what can be moved; whether there is more to do at once."""
        if self._quiesced:
            return False
        if self._detour is not None:
            self._detour.tick()
        self._rx = self._receive()
        self._tx = self._transmit()
        if self._detour is not None or self._rx_throttle or self._tx_throttle:
            self._set_alarm()
        if self._rx is Stop.WOULD_BLOCK and self._read:
            self._read.unpark()
        if self._tx is Stop.WOULD_BLOCK and self._write:
            self._write.unpark()
        return self._rx is Stop.BUDGET or self._tx is Stop.BUDGET

    def _receive(self) -> Stop:
        if self._tap_gone:
            return Stop.TAP_ERROR
        if (throttle := self._rx_throttle) is None:
            stop = self.device.drain_rx()
        else:
            self.device.limit_rx(*throttle.allowance())
            stop = self.device.drain_rx()
            throttle.consume(*self.device.take_used_rx())
        if stop is Stop.TAP_ERROR:
            self._tap_gone = True
            self._say_down()
        elif stop is Stop.BROKEN:
            self._break()
        return stop

    def _transmit(self) -> Stop:
        """A detour or a tap that fails is worth another drain, but not for ever."""
        end_ns = time.monotonic_ns() + _LOOK_NS
        for _ in range(DETOURS_A_LOOK):
            stop = self._drain_tx()
            if self._tap_down and not (self._tap_gone or self.device.tap_lost):
                self._say_up()
            if stop is Stop.DETOUR and self._detour is not None:
                self._detour.answer()
                if time.monotonic_ns() > end_ns:
                    return Stop.BUDGET
            elif stop is Stop.TAP_ERROR:
                self._say_down()
            else:
                break
        else:
            return Stop.BUDGET
        if stop is Stop.BROKEN:
            self._break()
        return stop

    def _drain_tx(self) -> Stop:
        if (throttle := self._tx_throttle) is None:
            return self.device.drain_tx()
        self.device.limit_tx(*throttle.allowance())
        stop = self.device.drain_tx()
        throttle.consume(*self.device.take_used_tx())
        return stop

    def _break(self) -> None:
        if self.device.fault is not None:
            return
        self.device.mark_fault()
        if self._transport is not None:
            self._transport.mark_broken()
        self._log(f"net {self.device.iface_id}: {self.device.fault}; needs a reset")

    # The tap

    def _set_offloads(self) -> None:
        """The driver is ready, or gone: the tap keeps to what it can take.

        HostError fails the activation. A tap that was deleted needs no telling,
        and the next frame tells of it.
        """
        try:
            self.tap.set_offloads(self.device.offloads())
        except HostError:
            if self.tap.exists:
                raise
        self._ring()

    def _say_down(self) -> None:
        number = self.device.tap_errno
        # One that is deleted goes down first, and a frame may come between.
        if self._tap_down and number in (self._tap_down, errno.EIO):
            return
        self._tap_down = number
        hint = _DOWN.format(self.tap.name) if number == errno.EIO else _GONE
        self._log(
            f"net {self.device.iface_id}: tap {self.tap.name}: {os.strerror(number)}"
            f" ({errno.errorcode.get(number, number)}); {hint}"
        )

    def _say_up(self) -> None:
        self._tap_down = 0
        self._log(f"net {self.device.iface_id}: tap {self.tap.name}: is back")

    # Limits and times

    def _set_alarm(self) -> None:
        times = [math.inf]
        if self._rx is Stop.THROTTLED and self._rx_throttle:
            times.append(self._rx_throttle.deadline())
        if self._tx is Stop.THROTTLED and self._tx_throttle:
            times.append(self._tx_throttle.deadline())
        if self._detour and (wait_ns := self._detour.timeout_ns()) is not None:
            times.append(trio.current_time() + wait_ns / _NS_PER_S)
        self._alarm.deadline = min(times)

    def _take_limiters(self) -> None:
        """Go on as the record says, unless that was done."""
        if not self._limited:
            self._limited = True
            self._rx_throttle = _throttle(self.device.rx_limiter)
            self._tx_throttle = _throttle(self.device.tx_limiter)

    def _keep_limiters(self) -> None:
        """Have the device's record say what the limiters have left by now."""
        if self._limited:
            rx, tx = self._rx_throttle, self._tx_throttle
            self.device.rx_limiter = None if rx is None else rx.save()
            self.device.tx_limiter = None if tx is None else tx.save()


def _throttle(state: LimiterState | None) -> Throttle | None:
    if state is None:
        return None
    from vmmd.loop.throttle import Throttle  # few interfaces have limits

    return Throttle(state)


def _updated(
    throttle: Throttle | None, update: RateLimiterConfig | None
) -> Throttle | None:
    """The throttle after a PATCH; one without limits is none."""
    if update is None:
        return throttle
    from vmmd.loop.throttle import Throttle

    throttle = throttle or Throttle(None)
    throttle.update(update)
    return throttle if throttle.limits else None


def nic(net: Net, saved: object, log: Callable[[str], None]) -> Nic:
    """The pump of an interface, over a duplicate of its tap's descriptor.

    ``saved`` is its record; anything else: it is a new one. The tap is the one
    that is open, whatever its name was. HostError: no such interface any more.
    """
    if not isinstance(net.tap, Tap):
        raise TypeError("resources hold taps that Tap.open did not open")
    if not net.tap.exists:
        raise HostError(f"tap {net.tap.name}: it was deleted since it was named")
    state = saved if isinstance(saved, NetState) else cold_state(net.config)
    tap = net.tap.duplicate()
    try:
        record = replace(state, host_dev_name=tap.name)
        return Nic(NetDevice.restore(record, tap.fd), tap, log)
    except HostError:
        tap.close()
        raise


def cold_state(config: NetworkInterfaceConfig) -> NetState:
    """An interface's state at a cold boot."""
    mac = config.guest_mac
    return NetState(
        iface_id=config.iface_id,
        host_dev_name=config.host_dev_name,
        guest_mac=None if mac is None else bytes.fromhex(mac.replace(":", "")),
        mtu=config.mtu,
        rx_limiter=cold(config.rx_rate_limiter),
        tx_limiter=cold(config.tx_rate_limiter),
    )
