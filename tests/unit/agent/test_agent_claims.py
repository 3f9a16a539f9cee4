"""Claims on a bridge that other runs and ovn-controller use too: a bridge made of two tables stands for it."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from builders import installed

from vtrace.agent.claims import (
    Claims,
    bridge_lock,
    is_our_meter,
    meters_in_use,
)
from vtrace.color import registry
from vtrace.color.registry import COPY_RATE_PPS, FIRST_RATE_PPS, Role, cookie
from vtrace.errors import CannotWorkError
from vtrace.model.openflow import FlowEntry, InstalledEntry, MeterStat
from vtrace.ovs.named_ids import NamedIds

# As docs/pipeline.md says.
MOST_COPIES_PPS = 10_600


class Bridge:
    """Entries and meters as OpenFlow 1.3 keeps them: one entry for each table, priority and match (6.4)."""

    mgmt_path = "br-int.mgmt"

    def __init__(self, max_meter: int = 200_000) -> None:
        self._max_meter = max_meter
        self.meter_table: dict[int, MeterStat] = {}
        self.entry_table: dict[tuple[int, int, str], InstalledEntry] = {}

    async def max_meter(self) -> int:
        return self._max_meter

    async def meters(self) -> list[MeterStat]:
        return list(self.meter_table.values())

    async def add_meter(self, meter_id: int, rate_pps: int, burst_packets: int) -> None:
        assert meter_id not in self.meter_table
        self.meter_table[meter_id] = MeterStat(meter_id=meter_id, rate_pps=rate_pps, burst_packets=burst_packets)

    async def delete_meter(self, meter_id: int) -> None:
        self.meter_table.pop(meter_id, None)

    async def add_entries(self, entries: list[FlowEntry]) -> None:
        for e in entries:
            self.entry_table[(e.table, e.priority, e.match)] = InstalledEntry(
                table=e.table, priority=e.priority, cookie=e.cookie, match=e.match, actions=e.actions
            )

    def ours(self) -> list[InstalledEntry]:
        return [e for e in self.entry_table.values() if registry.is_ours(e.cookie)]


async def claimed(bridge: Bridge, color: int) -> Claims:
    """A run that has claimed, as the agent does it: make, then hold."""
    claims = Claims(bridge)  # type: ignore[arg-type]
    await claims.make(bridge.ours())
    await claims.hold(color, 60)
    return claims


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("meter_id", "rate", "ours"),
    [
        (200_000, FIRST_RATE_PPS, True),
        (199_489, COPY_RATE_PPS, True),
        (199_488, FIRST_RATE_PPS, False),
        (200_000, 500, False),
        (200_000, 0, False),
        (1, FIRST_RATE_PPS, False),
    ],
)
async def test_is_our_meter(meter_id: int, rate: int, ours: bool) -> None:
    assert is_our_meter(MeterStat(meter_id=meter_id, rate_pps=rate), 200_000) == ours


async def test_ovn_controllers_first_meter_is_never_ours() -> None:
    # It allocates from 1 upwards; an ACL log meter of 1,000 packets/s is an ordinary one.
    assert not is_our_meter(MeterStat(meter_id=1, rate_pps=1000), 256)


async def test_meters_in_use() -> None:
    meters = [MeterStat(meter_id=number) for number in (5, 50, 7, 77)]
    entries = [
        installed("ip actions=controller(max_len=192,id=3,meter_id=50),resubmit(,0)"),
        installed("ip actions=clone(controller(id=3,meter_id=7,max_len=1))"),
    ]
    assert meters_in_use(entries, meters) == {50, 7}


async def test_a_claim_is_visible_and_bounded() -> None:
    bridge = Bridge()
    claims = await claimed(bridge, 7)
    claim = claims.claim
    assert claim is not None
    (entry,) = bridge.ours()
    assert registry.role_of(entry.cookie) == Role.CLAIM
    assert (registry.generation_of(entry.cookie), registry.color_of(entry.cookie)) == (claim.generation, 7)
    assert claim.controller_id == 0x5000 + claim.generation
    assert {m.meter_id for m in await bridge.meters()} == {claim.first_meter, claim.copy_meter} == {200_000, 199_999}
    assert meters_in_use(bridge.ours(), await bridge.meters()) == {claim.first_meter, claim.copy_meter}
    assert sum(m.burst_packets for m in await bridge.meters()) <= 200
    await claims.release()
    assert not bridge.meter_table


async def test_meters_of_others_are_never_touched() -> None:
    bridge = Bridge()
    for meter_id, rate in [(1, 1000), (2, 3000), (200_000, 777)]:
        await bridge.add_meter(meter_id, rate, 10)
    claims = await claimed(bridge, 7)
    await claims.release()
    assert set(bridge.meter_table) == {1, 2, 200_000}


async def test_meters_of_a_run_that_died_are_removed() -> None:
    bridge = Bridge()
    await bridge.add_meter(200_000, FIRST_RATE_PPS, 40)
    await bridge.add_meter(199_999, COPY_RATE_PPS, 60)
    await claimed(bridge, 7)
    assert len(bridge.meter_table) == 2


async def test_meters_of_a_run_that_lives_are_kept() -> None:
    bridge = Bridge()
    one = await claimed(bridge, 7)
    two = await claimed(bridge, 11)
    assert one.claim is not None
    assert two.claim is not None
    assert one.claim.generation != two.claim.generation
    assert len(bridge.meter_table) == 4


async def test_a_second_run_leaves_the_first_ones_claim() -> None:
    bridge = Bridge()
    one = await claimed(bridge, 7)
    await claimed(bridge, 11)
    assert one.claim is not None
    assert {registry.color_of(e.cookie) for e in bridge.ours()} == {7, 11}
    third = await claimed(bridge, 15)
    assert third.claim is not None
    assert {one.claim.first_meter, one.claim.copy_meter} <= set(bridge.meter_table), "still in use"


async def test_a_runs_second_color_leaves_its_first() -> None:
    bridge = Bridge()
    claims = await claimed(bridge, 7)
    await claims.hold(11, 60)
    assert {registry.color_of(e.cookie) for e in bridge.ours()} == {7, 11}


async def test_the_claim_entry_can_match_no_packet_of_table_0() -> None:
    bridge = Bridge()
    await claimed(bridge, 7)
    (entry,) = bridge.ours()
    # All bits of reg10 set: in table 0 it is 0 or holds stage 1.
    assert (entry.table, "reg10=0xffffffff" in entry.match.split(",")) == (0, True)


async def test_all_runs_together_stay_below_the_bounds() -> None:
    # The packet-in queue of 1,024 is shared: all bursts are at most about 200. And no more tasks have a color.
    bridge = Bridge()
    for number in range(len(registry.POOL_2)):
        claims = await claimed(bridge, 7)
        assert claims.claim is not None
        kept = cookie(Role.MATCH, claims.claim.generation)
        meters = (claims.claim.first_meter, claims.claim.copy_meter)
        actions = ",".join(f"controller(id=1,meter_id={meter})" for meter in meters)
        bridge.entry_table[(65, number, "")] = installed(f" actions={actions}", cookie=kept)
    assert sum(m.burst_packets for m in await bridge.meters()) <= 250
    assert sum(m.rate_pps for m in await bridge.meters()) <= MOST_COPIES_PPS
    assert all(is_our_meter(m, 200_000) for m in await bridge.meters())
    assert min(m.rate_pps for m in await bridge.meters()) > 0


@pytest.mark.parametrize("max_meter", [0, 1])
async def test_without_meters_nothing_is_claimed(max_meter: int) -> None:
    bridge = Bridge(max_meter)
    with pytest.raises(CannotWorkError):
        await claimed(bridge, 7)
    assert not bridge.entry_table


async def test_meter_4000_is_never_taken() -> None:
    bridge = Bridge(4000)
    claims = await claimed(bridge, 7)
    assert claims.claim is not None
    assert {claims.claim.first_meter, claims.claim.copy_meter} == {3999, 3998}


async def test_meters_that_somebody_removed_come_back() -> None:
    bridge = Bridge()
    claims = await claimed(bridge, 7)
    bridge.meter_table.clear()
    await claims.renew_meters()
    assert claims.claim is not None
    assert set(bridge.meter_table) == {claims.claim.first_meter, claims.claim.copy_meter}


async def test_ids_that_entries_of_others_name_are_not_claimed() -> None:
    """An entry may name a meter that is not there, and a controller id: ours would be theirs."""
    bridge, named = Bridge(max_meter=200_000), NamedIds()
    named.take(
        [
            " table=3, ip actions=controller(reason=no_match,max_len=9,id=20485,meter_id=200000),drop",
            " table=3, udp actions=meter:199999,clone(controller(id=0x5006,userdata=00)),resubmit(,4)",
        ]
    )
    assert (named.controllers, named.meters) == ({0x5005, 0x5006}, {200_000, 199_999})
    all_but_one = set(range(1, 1 << registry.GENERATION_BITS)) - {5, 6, 77}
    entries = [installed("ip actions=drop", cookie=cookie(Role.MATCH, g)) for g in all_but_one]
    claim = await Claims(bridge).make(entries, named)  # type: ignore[arg-type]
    assert (claim.generation, claim.controller_id) == (77, 0x5000 + 77)
    assert (claim.first_meter, claim.copy_meter) == (199_998, 199_997)


async def test_ids_in_our_own_entries_are_no_hindrance() -> None:
    named = NamedIds()
    named.take([" cookie=0x5654100500000001, table=3, ip actions=controller(id=20485,meter_id=200000)"])
    assert (named.controllers, named.meters) == (set(), set())


async def test_a_meter_that_somebody_changed_is_left_to_them() -> None:
    bridge = Bridge()
    claims = await claimed(bridge, 3)
    assert claims.claim is not None
    first, copy = claims.claim.first_meter, claims.claim.copy_meter
    theirs = MeterStat(meter_id=copy, rate_pps=5, burst_packets=1)
    bridge.meter_table[copy] = theirs
    claims.lost_meters.add(copy)
    await claims.renew_meters()
    assert (claims.claim.first_meter, claims.claim.copy_meter) == (first, copy - 1)
    assert bridge.meter_table[copy - 1].rate_pps == COPY_RATE_PPS
    await claims.release()
    assert bridge.meter_table == {copy: theirs}


async def test_a_meter_that_somebody_deleted_is_put_back() -> None:
    bridge = Bridge()
    claims = await claimed(bridge, 3)
    assert claims.claim is not None
    before = dict(bridge.meter_table)
    del bridge.meter_table[claims.claim.first_meter]
    claims.lost_meters.add(claims.claim.first_meter)
    await claims.renew_meters()
    assert bridge.meter_table == before
    await claims.release()
    assert bridge.meter_table == {}


def test_where_no_lock_can_be_made_it_cannot_work(tmp_path: Path) -> None:
    """As on a full or read-only disk; root may write to any folder, so there is none."""

    async def run() -> None:
        async with bridge_lock(str(tmp_path / "no-such-folder"), "br-int"):
            pass

    with pytest.raises(CannotWorkError, match=r"br-int\.lock.*No such file"):
        anyio.run(run)
