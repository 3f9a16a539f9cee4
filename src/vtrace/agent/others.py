"""Watches that nobody else takes what a run has claimed on its bridge: meters, cookies, guard bits.

All of it was free when it was claimed. Who changes a bridge by hand, or a second controller, may take it later:

- a meter: it is read every second. One that is gone or was changed is somebody else's now; others are taken.
- guard bits: the bridge tells of every entry that is added or changed; those that name the register are looked at.
- the cookie's generation: likewise, and entries of ours are counted, so that one that was replaced is missed. A masked
  deletion would take a foreign entry along: from then on ours are removed one by one, and the task ends.

A group's buckets are looked at before a claim only: OpenFlow 1.3 tells of no change to them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import anyio

from vtrace.agent.claims import Claims
from vtrace.agent.own import OwnEntries, is_of_another_run
from vtrace.color import registry
from vtrace.errors import RefusedError
from vtrace.model.openflow import GuardBits, InstalledEntry
from vtrace.ovs.channel import OpenFlowChannel, OtherEntry
from vtrace.ovs.flowtext import is_entry, parse_entry
from vtrace.ovs.guard_bits import mentions, used_bits
from vtrace.ovs.ofctl import OfCtl

LOOK_EVERY_S = 1.0
# More suspects than this are found in a dump of their tables, not one by one.
_ONE_BY_ONE = 16
_SHOWN = 160


class OthersWatch:
    """What others did to one run's claims since it made them.

    Attributes:
        fatal: why the task can't go on here, if it can't.
        wake: set when there is something to look at.
    """

    def __init__(self, ofctl: OfCtl, claims: Claims, own: OwnEntries) -> None:
        self._ofctl = ofctl
        self._claims = claims
        self._own = own
        self.guard: GuardBits | None = None
        self.fatal: RefusedError | None = None
        self.wake = anyio.Event()
        # By table the cookies to look at; all of the table where they are many.
        self._suspects: dict[int, set[int]] = {}
        self._counted: tuple[int, dict[int, int]] = (-1, {})
        self._told = False
        self._intruders: set[tuple[int, int, int]] = set()

    def begin(self, guard: GuardBits) -> None:
        """Notes the bits in use from now on; what was found before is settled."""
        self.guard = guard
        self._told = False
        self._counted = (-1, {})

    def take(self, event: OtherEntry) -> None:
        """An entry that was added or changed, by us or by somebody else."""
        claim = self._claims.claim
        if claim is None or self._own.has(event.table, event.priority, event.cookie):
            return
        if not is_of_another_run(event.cookie, event.hard_timeout_s, claim.generation):
            cookies = self._suspects.setdefault(event.table, set())
            if len(cookies) <= _ONE_BY_ONE:
                cookies.add(event.cookie)
            self.wake.set()

    async def look(self, channel: OpenFlowChannel) -> str:
        """What somebody did, in words; empty where there is nothing new.

        Raises:
            VTraceError: the bridge could not be asked.
        """
        self.wake = anyio.Event()
        if self._claims.claim is None or self._told:
            return ""
        reason = await self._entries() or await self._meters(channel) or await self._counts(channel)
        self._told = bool(reason)
        return reason

    async def _entries(self) -> str:
        suspects, self._suspects = self._suspects, {}
        if not suspects:
            return ""
        found = [entry for table, cookies in suspects.items() for entry in await self._read(table, cookies)]
        if intruders := [e for e in found if self._is_in_our_generation(e)]:
            return self._intruded(intruders)
        for entry in found:
            if self._uses_guard(entry):
                return f"an entry of somebody else uses our bits of reg{self.register}: {_text(entry)}"
        return ""

    @property
    def register(self) -> int:
        """That of the guard bits."""
        return self.guard.register if self.guard else 0

    def is_left(self, entry: InstalledEntry) -> bool:
        """Whether an entry of our generation, found after ours were removed, is one of ours all the same."""
        return (entry.table, entry.priority, entry.cookie) not in self._intruders and registry.is_our_entry(
            entry.cookie, entry.hard_timeout_s
        )

    def _uses_guard(self, entry: InstalledEntry) -> bool:
        if self.guard is None or registry.is_our_entry(entry.cookie, entry.hard_timeout_s):
            return False
        return bool(used_bits([entry], self.guard.register) & 3 << self.guard.lsb)

    def _is_in_our_generation(self, entry: InstalledEntry) -> bool:
        claim = self._claims.claim
        return (
            claim is not None
            and registry.is_ours(entry.cookie)
            and registry.generation_of(entry.cookie) == claim.generation
            and not self._own.has(entry.table, entry.priority, entry.cookie)
        )

    def _intruded(self, intruders: Sequence[InstalledEntry]) -> str:
        self._intruders |= {(e.table, e.priority, e.cookie) for e in intruders}
        text = _text(intruders[0])
        self.fatal = RefusedError(
            "Somebody else uses the cookies of this task's entries",
            self._ofctl.mgmt_path,
            text,
            "Ours were removed, theirs were left. Find out who adds entries whose cookies begin with 0x5654",
        )
        return f"an entry of somebody else has a cookie of this task: {text}"

    async def _read(self, table: int, cookies: Collection[int]) -> list[InstalledEntry]:
        """The entries of a table with these cookies; of many, all that name the register or look like ours."""
        if len(cookies) > _ONE_BY_ONE:
            return self._marked((await self._ofctl.dump_text(table=table)).splitlines())
        found: list[InstalledEntry] = []
        for cookie in cookies:
            found += await self._ofctl.dump_entries(table=table, cookie=(cookie, registry.FULL_MASK))
        return found

    def _marked(self, lines: Iterable[str]) -> list[InstalledEntry]:
        return [
            parse_entry(line)
            for line in lines
            if is_entry(line) and (mentions(line, self.register) or f"cookie=0x{registry.COOKIE_MAGIC:x}" in line)
        ]

    async def _meters(self, channel: OpenFlowChannel) -> str:
        for meter_id, put in self._claims.meters_put().items():
            now = await channel.meter(meter_id)
            if now != put and meter_id in self._claims.meters_put():
                self._claims.lost_meters.add(meter_id)
                how = "deleted" if now is None else "changed"
                return f"our meter {meter_id} was {how} by somebody else"
        return ""

    async def _counts(self, channel: OpenFlowChannel) -> str:
        claim = self._claims.claim
        if claim is None:
            return ""
        version = self._own.version
        cookie = registry.cookie(registry.Role.COLOR, claim.generation) & registry.GENERATION_MASK
        counts = {t: await channel.count(cookie, registry.GENERATION_MASK, t) for t in self._own.tables()}
        if version != self._own.version or self._own.expiring():
            # Ours changed meanwhile, or are about to: what is there next time is what is compared with.
            self._counted = (-1, {})
            return ""
        before, self._counted = self._counted, (version, counts)
        if before[0] != version or before[1] == counts:
            return ""
        for table, count in counts.items():
            if count > before[1].get(table, count):
                entries = await self._ofctl.dump_entries(table=table, cookie=(cookie, registry.GENERATION_MASK))
                strange = [e for e in entries if self._is_in_our_generation(e)]
                return self._intruded(strange or entries[-1:])
        gone = sum(before[1].values()) - sum(counts.values())
        return f"{gone} of our entries were replaced by somebody else"


def _text(entry: InstalledEntry) -> str:
    match = f",{entry.match}" if entry.match else ""
    text = f"table={entry.table},priority={entry.priority},cookie=0x{entry.cookie:x}{match} actions={entry.actions}"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
