"""Which servers take part in a task, and where its entries go on each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vtrace.collect.link import AgentLink, Survey
from vtrace.model.inventory import OUTWARD, Inventory
from vtrace.model.plan import FirstHop, LocalVif, Scope
from vtrace.model.task import Endpoint, Pair


class Scopes:
    """The scopes of one task, as its topology and its servers are now.

    Attributes:
        agents: by chassis name; inventory, pairs: what the task is about.
        surveys: what was found on the bridges that were looked at, by chassis name.
        given_up: chassis that failed or did not answer in time; gone: those whose Open vSwitch ended. Started anew it
            has none of our entries, but for those that `ovs-ctl restart` saved.
    """

    def __init__(self, agents: Mapping[str, AgentLink], inventory: Inventory, pairs: Sequence[Pair]) -> None:
        self.agents = agents
        self.inventory = inventory
        self.pairs = pairs
        self.surveys: dict[str, Survey] = {}
        self.given_up: set[str] = set()
        self.gone: set[str] = set()
        self._known: dict[str, tuple[tuple[object, ...], Scope]] = {}

    @property
    def live(self) -> dict[str, AgentLink]:
        """The agents whose servers answer, by chassis name."""
        return {name: agent for name, agent in self.agents.items() if name not in self.given_up}

    @property
    def bare(self) -> frozenset[str]:
        """The chassis that ports may be bound by, and that have no entries of ours."""
        places = {name for port in self.inventory.ports for name in (port.chassis, *port.standby) if name}
        return frozenset(places - set(self.agents) | self.gone)

    def only_entrance(self, pair: Pair) -> set[str]:
        """The one server by which the pair's packets can come in; none where there are several."""
        found: set[str] = set()
        for port in self.inventory.ends(pair.source):
            outward = port.type in OUTWARD
            found |= self.inventory.entrances(port) if outward else {port.chassis, *port.standby}
        found &= set(self.agents)
        return found if len(found) == 1 else set()

    def of(self, chassis: str) -> Scope:
        """Where the task's entries go on a chassis."""
        without = (self.given_up.copy(), self.gone.copy())
        basis = (self.inventory, self.pairs, self.surveys[chassis], without, len(self.agents))
        known = self._known.get(chassis)
        # Asked for each pair: of many it takes a while to make.
        if known is None or any(a is not b and a != b for a, b in zip(known[0], basis, strict=True)):
            known = self._known[chassis] = (basis, self._made(chassis))
        return known[1]

    def _made(self, chassis: str) -> Scope:
        survey = self.surveys[chassis]
        armed = tuple(sorted(self.live))
        members = {name for datapath in self.inventory.datapaths for name in datapath.chassis}
        ends = {n for p in self.pairs for e in (p.source, p.destination) for n in e.ports}
        return Scope(
            chassis=chassis,
            layout=survey.layout,
            datapaths=self.inventory.datapaths,
            ports=self.inventory.ports,
            vifs=survey.vifs,
            tunnels=tuple(t for t in survey.tunnels if t.chassis in armed),
            other_tunnels=tuple(t for t in survey.tunnels if t.chassis in members and t.chassis not in armed),
            armed_chassis=armed,
            bare=tuple(sorted(self.bare)),
            endpoints=tuple(sorted(ends.union(self.inventory.rivals))),
            ip_versions=tuple(sorted({p.traffic.ip_version for p in self.pairs})),
            plain=survey.plain,
        )

    def first_hops(self, chassis: str) -> list[FirstHop]:
        """The pairs whose packets first meet a virtual device on the chassis."""
        return [FirstHop(pair=pair, vif=vif) for pair in self.pairs for vif in self.entries_of(pair, chassis)]

    def entries_of(self, pair: Pair, chassis: str) -> list[LocalVif]:
        """Where packets of the pair's source may come in on the chassis."""
        return self._vifs(pair.source, pair.destination, chassis)

    def answers_of(self, pair: Pair, chassis: str) -> list[LocalVif]:
        """Where what the pair's destination answers may come in on the chassis."""
        return self._vifs(pair.destination, pair.source, chassis)

    def _vifs(self, end: Endpoint, other: Endpoint, chassis: str) -> list[LocalVif]:
        scope = self.of(chassis)
        found = []
        for port in self.inventory.ends(end):
            if port.type in OUTWARD:
                # By a gateway, or where the other end is, if its floating IP is distributed.
                here = self.inventory.entrances(port) | {p.chassis for p in self.inventory.ends(other)}
            else:
                here = frozenset((port.chassis, *port.standby))
            vif = scope.vif(port) if chassis in here else None
            if vif is not None:
                found.append(vif)
        return found
