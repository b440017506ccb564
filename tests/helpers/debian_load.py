"""What goes on in a Debian guest while it is saved and restored, and is seen to.

Writes with checksums to its disk, pings, and a counter that sleeps between its
steps, on an ssh connection that stays open.
"""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.helpers.debian_guest import guest_address
from tests.helpers.poll import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.debian_guest import DebianGuest

CPUS = 2
STEP_S = 0.2
WAIT_S = 120.0
# On each processor in turn: the monotonic clock must not go back. Then a line,
# and a sleep: a guest whose timers were lost stops here.
COUNTER = f"""
$| = 1;
sub now {{ my $b = "\\0" x 16; syscall(228, $_[0], $b); my ($s, $n) = unpack "qq", $b;
           $s + $n / 1e9 }}
my ($last, $back) = (0, 0);
for (my $n = 0;; $n++) {{
    for my $cpu (0 .. {CPUS - 1}) {{
        my $mask = pack "Q", 1 << $cpu;
        syscall(203, 0, 8, $mask);
        my $t = now(1);
        $back++ if $t < $last;
        $last = $t;
    }}
    printf "%d %.6f %.6f %d\\n", $n, $last, now(0), $back;
    select undef, undef, undef, {STEP_S};
}}
"""
# The sums are taken from memory, before the disk has the data.
WRITER = """
mkdir /data
n=0
while [ ! -e /tmp/stop ]; do
    n=$((n + 1))
    head -c 200000 /dev/urandom >/tmp/block
    sum=$(sha256sum </tmp/block)
    dd if=/tmp/block of=/data/$((n % 100)) bs=20k conv=fsync 2>/dev/null
    echo "${sum% *} /data/$((n % 100))" >/data/sum.$((n % 100))
    sleep 0.1
done
sync
echo $n >/tmp/stopped
"""


@dataclass(frozen=True, slots=True)
class Tick:
    """A line of the counter: its number, the guest's two clocks, steps back."""

    number: int
    monotonic_s: float
    wall_s: float
    back: int


@dataclass(slots=True)
class Load:
    """What goes on all the time: writes, pings, a counter on an ssh connection.

    Other commands go over the same connection, which stays open.
    """

    folder: Path
    guest: DebianGuest
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        """Begin with all of it; the counter has counted when this returns."""
        self._start("ticks", self._ssh("-M", f"perl -e '{COUNTER}'"))
        until(lambda: len(self.ticks()) > 3, WAIT_S)
        self.ssh(f"cat >/tmp/writer <<'END'\n{WRITER}\nEND\n")
        self.ssh("setsid sh /tmp/writer >/dev/null 2>&1 </dev/null &")
        ping = ["ping", "-O", "-i", "0.25", guest_address(0)]
        self._start("pings", self.guest.where.command(*ping))
        until(lambda: self.pings() > 3, WAIT_S)
        self.ssh("until [ -e /data/sum.2 ]; do sleep 0.2; done")

    def stop(self) -> None:
        """End the host's part."""
        for child in self.running:
            child.kill()
            child.wait()

    def ssh(self, command: str) -> str:
        """What a command prints that came over the open connection."""
        done = subprocess.run(
            self._ssh("-oControlMaster=no", command),
            capture_output=True,
            text=True,
            timeout=WAIT_S,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def ticks(self) -> list[Tick]:
        """All that the counter has said."""
        lines = (self.folder / "ticks").read_text().splitlines(keepends=True)
        words = [line.split() for line in lines if line.endswith("\n")]
        return [Tick(int(n), float(m), float(w), int(b)) for n, m, w, b in words]

    def lag_s(self) -> float:
        """How far the guest's wall clock is behind the host's, about."""
        ticks = len(self.ticks())
        until(lambda: len(self.ticks()) > ticks, WAIT_S)
        return time.time() - self.ticks()[-1].wall_s

    def pings(self) -> int:
        """How many pings were answered."""
        return (self.folder / "pings").read_text().count("bytes from")

    def goes_on(self) -> None:
        """Wait until the counter has counted on and pings are answered."""
        ticks, pings = len(self.ticks()), self.pings()
        until(lambda: len(self.ticks()) > ticks + 5, WAIT_S)
        until(lambda: self.pings() > pings + 3, WAIT_S)
        assert self.running[0].poll() is None

    def _ssh(self, option: str, *words: str) -> list[str]:
        command = self.guest.ssh_command(0, *words)
        at = command.index("ssh") + 1
        return [*command[:at], option, "-S", str(self.folder / "ctl"), *command[at:]]

    def _start(self, name: str, command: list[str]) -> None:
        with (self.folder / name).open("wb") as out:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out)
        self.running.append(child)
