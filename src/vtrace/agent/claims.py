"""Claims on a bridge: a cookie generation, a controller id and two meters that nobody else has.

Everything is claimed from what the bridge holds, under a lock of the host, so that any number of runs can work on
one bridge. A run that died leaves meters behind (they have no time-out): they are removed here once no entry
of ours refers to them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path

import anyio
import msgspec

from vtrace.color import registry
from vtrace.color.registry import COPY_RATES_PPS, FIRST_RATES_PPS
from vtrace.errors import CannotWorkError
from vtrace.model.openflow import FlowEntry, InstalledEntry, MeterStat, TableId
from vtrace.model.plan import COPY_BURST_PACKETS, FIRST_BURST_PACKETS, Claim
from vtrace.ovs.named_ids import NamedIds
from vtrace.ovs.ofctl import OfCtl, SwitchRefusedError

LOCK_TIMEOUT_S = 20.0
# The packet-in queue of a bridge holds 1,024 and is shared with ovn-controller: all our bursts together stay
# far below it.
BURST_BUDGET_PACKETS = 200
# All runs on a bridge copy so many packets a second together, and the few of the smallest rates beyond.
RATE_BUDGET_PPS = 8100
_SMALLEST_BURST_PACKETS = 2
_METER_TRIES = 4
_METER_RETRY_S = 0.3


@contextlib.asynccontextmanager
async def bridge_lock(rundir: str, bridge: str) -> AsyncIterator[None]:
    """Holds the host's lock for claims on one bridge; the kernel frees it if the process dies.

    Raises:
        CannotWorkError: another run held it for too long, or the file of the lock can't be made.
    """
    path = Path(rundir) / f"vtrace.{bridge}.lock"
    descriptor = -1
    with anyio.move_on_after(LOCK_TIMEOUT_S) as limit:
        # A lock of another process: no event tells when it is free.
        while (descriptor := _try_lock(path)) < 0:  # noqa: ASYNC110
            await anyio.sleep(0.02)
    if limit.cancelled_caught:
        raise CannotWorkError(
            f"Another run of VTrace keeps the bridge {bridge} locked",
            str(path),
            f"waited {LOCK_TIMEOUT_S:g} s",
            "Try again; if it stays, look which process has the file open",
        )
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _try_lock(path: Path) -> int:
    """The descriptor of the locked file; -1 where somebody else has it, or removed it while we waited."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotWorkError(
            "The bridge can't be locked against other runs",
            str(path),
            error.strerror or str(error),
            "Nothing was colored by this run; see whether the disk is full",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return -1


def is_our_meter(meter: MeterStat, max_meter: int) -> bool:
    """Whether a meter looks like one of ours: at the top of the id space, with one of our rates."""
    lowest = max(max_meter - registry.METER_ID_SPAN, max_meter // 2)
    at_top = lowest < meter.meter_id <= max_meter
    return at_top and meter.rate_pps in FIRST_RATES_PPS + COPY_RATES_PPS


def meters_in_use(entries: Sequence[InstalledEntry], meters: Sequence[MeterStat]) -> set[int]:
    """The meters that some entry refers to."""
    return {
        meter.meter_id
        for meter in meters
        if any(
            f"meter_id={meter.meter_id})" in e.actions or f"meter_id={meter.meter_id}," in e.actions for e in entries
        )
    }


def _rates(left_pps: int) -> tuple[int, int]:
    """The highest pair of rates that is no more than half of what is left, else the lowest."""
    pairs = list(zip(FIRST_RATES_PPS, COPY_RATES_PPS, strict=True))
    return next((pair for pair in pairs if sum(pair) <= left_pps / 2), pairs[-1])


class Claims:
    """Makes and gives back the claims of one run on one bridge."""

    def __init__(self, ofctl: OfCtl) -> None:
        self._ofctl = ofctl
        self.claim: Claim | None = None
        # Meters that somebody else deleted or changed since: they are not ours any more.
        self.lost_meters: set[int] = set()
        self._put: dict[int, tuple[int, int]] = {}

    async def make(self, entries: Sequence[InstalledEntry], named: NamedIds | None = None) -> Claim:
        """Claims; call it while holding the bridge's lock.

        Args:
            entries: the entries on the bridge that have our cookie magic.
            named: the meters and controller ids that entries of others name.

        Raises:
            CannotWorkError: no meters to be had: copies would be without bound, so none are made.
        """
        max_meter = await self._ofctl.max_meter()
        if max_meter <= 0:
            raise CannotWorkError(
                "The bridge has no meters", self._ofctl.mgmt_path, "copies of packets could not be bounded", ""
            )
        meters = await self._ofctl.meters()
        in_use = meters_in_use(entries, meters)
        kept = []
        for meter in meters:
            if is_our_meter(meter, max_meter) and meter.meter_id not in in_use:
                await self._ofctl.delete_meter(meter.meter_id)
            else:
                kept.append(meter)
        named = named or NamedIds()
        first, copy = self._free_meters({m.meter_id for m in kept} | named.meters, max_meter)[:2]
        ours = [meter for meter in kept if is_our_meter(meter, max_meter)]
        # Each further run gets half of what is left, so that all together stay within the budgets.
        burst_left = BURST_BUDGET_PACKETS - sum(meter.burst_packets for meter in ours)
        share = min(1.0, max(0, burst_left / 2 if ours else burst_left) / (FIRST_BURST_PACKETS + COPY_BURST_PACKETS))
        first_rate, copy_rate = _rates(RATE_BUDGET_PPS - sum(meter.rate_pps for meter in ours))
        generation = self._free_generation(entries, named.controllers)
        claim = Claim(
            generation=generation,
            controller_id=registry.CONTROLLER_ID_BASE + generation,
            first_meter=first,
            copy_meter=copy,
            first_rate_pps=first_rate,
            copy_rate_pps=copy_rate,
            first_burst=max(_SMALLEST_BURST_PACKETS, int(FIRST_BURST_PACKETS * share)),
            copy_burst=max(_SMALLEST_BURST_PACKETS, int(COPY_BURST_PACKETS * share)),
        )
        self.claim = claim
        await self._add_meter(first, first_rate, claim.first_burst)
        await self._add_meter(copy, copy_rate, claim.copy_burst)
        return claim

    def shown(self, color: int, hard_timeout_s: int) -> FlowEntry:
        """The entry that shows the claim to other runs. It matches no packet: stage 3 never is in table 0."""
        if self.claim is None:
            raise RuntimeError("hold() before make()")
        claim = self.claim
        actions = ",".join(
            f"controller(max_len=0,id={claim.controller_id},meter_id={meter})"
            for meter in (claim.first_meter, claim.copy_meter)
        )
        return FlowEntry(
            table=TableId(0),
            priority=0,
            cookie=registry.cookie(registry.Role.CLAIM, claim.generation, color=color),
            match=f"ip,nw_proto=255,reg8=0x{color:x},reg9=0x{claim.generation:x},reg10=0xffffffff",
            actions=actions,
            hard_timeout_s=hard_timeout_s,
        )

    async def hold(self, color: int, hard_timeout_s: int) -> None:
        """Puts in the entry that shows the claim to other runs."""
        await self._ofctl.add_entries([self.shown(color, hard_timeout_s)])

    def meters_put(self) -> dict[int, tuple[int, int]]:
        """(packets/s, burst) of each of our meters as it was added."""
        return dict(self._put)

    async def renew_meters(self) -> None:
        """Puts the claimed meters back after somebody removed all meters of the bridge.

        In the place of one that is somebody else's now another is claimed: call it while holding the bridge's lock.
        """
        if self.claim is None:
            return
        claim = self.claim
        present = {m.meter_id: (m.rate_pps, m.burst_packets) for m in await self._ofctl.meters()}
        changed = {m for m in self.lost_meters if m in present and present[m] != self._put.get(m)}
        for meter_id in changed:
            self._put.pop(meter_id, None)
        self.lost_meters.clear()
        first, copy = claim.first_meter, claim.copy_meter
        if changed & {first, copy}:
            max_meter = await self._ofctl.max_meter()
            free = self._free_meters({*present, first, copy}, max_meter)
            first, copy = (free.pop(0) if meter in changed else meter for meter in (first, copy))
            self.claim = msgspec.structs.replace(claim, first_meter=first, copy_meter=copy)
        if first not in present:
            await self._add_meter(first, claim.first_rate_pps, claim.first_burst)
        if copy not in present:
            await self._add_meter(copy, claim.copy_rate_pps, claim.copy_burst)

    async def cut(self) -> tuple[int, int]:
        """How many copies our two meters cut so far: at the first hop, elsewhere."""
        if self.claim is None:
            return 0, 0
        cut = {m.meter_id: m.band_packets for m in await self._ofctl.meters()}
        return cut.get(self.claim.first_meter, 0), cut.get(self.claim.copy_meter, 0)

    async def release(self) -> None:
        """Removes the meters, as far as they are still ours; the entries that refer to them must be gone."""
        if self.claim is not None:
            present = {m.meter_id: (m.rate_pps, m.burst_packets) for m in await self._ofctl.meters()}
            for meter_id, put in self._put.items():
                if present.get(meter_id) == put:
                    await self._ofctl.delete_meter(meter_id)
            self.claim = None
            self._put = {}

    async def _add_meter(self, meter_id: int, rate_pps: int, burst: int) -> None:
        """Adds a meter; again where ovn-controller, starting just now, removed it before it could be verified."""
        self._put[meter_id] = (rate_pps, burst)
        for tries_left in range(_METER_TRIES - 1, -1, -1):
            try:
                await self._ofctl.add_meter(meter_id, rate_pps, burst)
                return
            except SwitchRefusedError:
                if not tries_left:
                    raise
                await anyio.sleep(_METER_RETRY_S)

    def _free_meters(self, taken: Collection[int], max_meter: int) -> list[int]:
        """Two ids that nobody has."""
        span = range(max_meter, max(max_meter - registry.METER_ID_SPAN, max_meter // 2), -1)
        free = [meter_id for meter_id in span if meter_id not in taken and meter_id != 4000][:2]
        if len(free) < 2:
            raise CannotWorkError("No meter id is free", self._ofctl.mgmt_path, "too many runs of VTrace at once", "")
        return free

    def _free_generation(self, entries: Sequence[InstalledEntry], controllers: Collection[int]) -> int:
        taken = {registry.generation_of(e.cookie) for e in entries if registry.is_ours(e.cookie)}
        taken |= {number - registry.CONTROLLER_ID_BASE for number in controllers}
        free = [g for g in range(1, 1 << registry.GENERATION_BITS) if g not in taken]
        return secrets.choice(free)
