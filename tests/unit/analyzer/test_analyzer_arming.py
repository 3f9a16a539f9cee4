"""Which color a task takes, and how its coloring entries are made: with agents that only write down."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import cast

import anyio
import pytest
from builders import CLAIM, HV1, HV2, INVENTORY, LAYOUT, pair, scope
from msgspec.structs import replace

from vtrace.analyzer import arming as arming_module
from vtrace.analyzer.arming import Arming
from vtrace.collect.link import AgentLink, ColorsBefore, Survey
from vtrace.color.registry import POOL_2, Role
from vtrace.errors import CannotWorkError
from vtrace.model.plan import Claim, PlannedEntry
from vtrace.model.task import TrafficFilter

NOTHING = ColorsBefore()


class Agent:
    """Writes down what is asked of it."""

    def __init__(self, chassis: str, before: ColorsBefore, used: Sequence[int], *, in_place: bool) -> None:
        self.chassis = chassis
        self._before, self._used, self._in_place = before, tuple(used), in_place
        self.claimed: list[int] = []
        self.coloring: list[list[str]] = []

    async def lock(self) -> None: ...

    async def abandon_claim(self) -> None: ...

    async def settle(self) -> None: ...

    async def drain(self) -> None: ...

    async def remove(self, role: int, *, color: int | None = None, index: int | None = None) -> None: ...

    async def is_metered(self, _: str) -> bool:
        return True

    async def survey(self) -> Survey:
        own = scope(self.chassis)
        return Survey(
            chassis=self.chassis,
            layout=LAYOUT,
            vifs=own.vifs,
            ports=(),
            tunnels=own.tunnels,
            changes_flows_in_place=self._in_place,
        )

    async def colors_used(self) -> tuple[int, ...]:
        return self._used

    async def colors_before(self) -> ColorsBefore:
        return self._before

    async def claim(self, color: int) -> Claim:
        self.claimed.append(color)
        return replace(CLAIM)

    async def install(self, planned: Sequence[PlannedEntry]) -> None:
        found = [p.entry.match for p in planned if p.hook.role == Role.COLOR]
        if found:
            self.coloring.append(found)


def armed(
    before: Mapping[str, ColorsBefore] | None = None, used: Sequence[int] = (), *, in_place: bool = True
) -> tuple[Arming, dict[str, Agent]]:
    agents = {name: Agent(name, (before or {}).get(name, NOTHING), used, in_place=in_place) for name in (HV1, HV2)}
    found = pair(index=4, traffic=TrafficFilter(proto="udp", dport=53))
    arming = Arming(cast("Mapping[str, AgentLink]", agents), INVENTORY, [found], 30)
    arming.may_color.set()
    arming.can_read.set()
    return arming, agents


@pytest.mark.parametrize(
    ("before", "used", "color"),
    [
        ({}, (), 3),
        ({}, (3, 7), 11),
        # A task had 3 just before; what cached flows match of 7 came after any task, and 11 is another task's.
        ({HV1: ColorsBefore(ages_s={3: 2.0}), HV2: ColorsBefore(cached_s={7: 0.5})}, (11,), 15),
    ],
    ids=["first", "held", "cached"],
)
def test_a_task_takes_a_color_that_no_server_knows(
    before: dict[str, ColorsBefore], used: tuple[int, ...], color: int
) -> None:
    arming, agents = armed(before, used)
    assert anyio.run(arming.claim_color, 0).color == color
    assert [agent.claimed for agent in agents.values()] == [[color], [color]]


def test_what_tenants_send_is_never_taken_and_what_tasks_had_is_taken_last() -> None:
    """One color is left that a task had just before."""
    sent = dict.fromkeys(POOL_2, 0.1)
    arming, _ = armed({HV1: ColorsBefore(ages_s={19: 0.3}, cached_s=sent | {19: 0.4})})
    assert anyio.run(arming.claim_color, 0).color == 19
    arming, agents = armed({HV2: ColorsBefore(cached_s=sent)})
    with pytest.raises(CannotWorkError) as caught:
        anyio.run(arming.claim_color, 0)
    assert "tenants send packets with DSCP 3, 7, 11," in str(caught.value)
    assert [agent.claimed for agent in agents.values()] == [[], []]


def bits(matches: Sequence[str]) -> set[str]:
    """The bits of the source port that entries ask for."""
    return {bit for match in matches for bit in re.findall(r"udp_src=\w+/(0x\w+)", match)}


def test_each_time_a_pair_is_colored_by_another_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arming_module, "LISTEN_S", 0.0)
    arming, agents = armed()

    async def color_in_pulses() -> None:
        await arming.claim_color(0)
        await arming.start()
        for _ in range(40):
            await arming.rest(4)
            await arming.color_again(4)

    anyio.run(color_in_pulses)
    rounds = [bits(matches) for matches in agents[HV1].coloring]
    assert len(rounds) == 41
    assert all(len(one) == 1 for one in rounds)
    assert all(one != two for one, two in itertools.pairwise(rounds))
    assert agents[HV2].coloring == []


def test_a_kernel_datapath_gets_whole_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arming_module, "LISTEN_S", 0.0)
    arming, agents = armed(in_place=False)

    async def color() -> None:
        await arming.claim_color(0)
        await arming.start()

    anyio.run(color)
    ((whole, fragments),) = agents[HV1].coloring
    assert "udp_dst=53" in whole
    assert bits([whole]) == set()
    assert "ip_frag=yes" in fragments
