"""The embedded shape: agents, analyzer and verdict in one process, no servers."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
import msgspec
import msgspec.structs

from vtrace import kept_code
from vtrace.agent.chassis import CLOSE_TIMEOUT_S, HANGING_TIMEOUT_S, ChassisAgent, rundir_or_fail
from vtrace.agent.plain import PlainAgent
from vtrace.analyzer.arming import TIME_STEP_S
from vtrace.analyzer.runner import Outcome, Progress, TaskRunner
from vtrace.attribute.case import Case
from vtrace.attribute.causes import rfc3339
from vtrace.attribute.evidence import evidence_records
from vtrace.attribute.verdicts import Attribution, attribute
from vtrace.errors import CannotWorkError, UsageError, VTraceError
from vtrace.lab import state as lab_state
from vtrace.model.answer import Answer, Cost, TaskAnswer
from vtrace.model.inventory import Inventory
from vtrace.model.plain import PlainCloud
from vtrace.model.task import Endpoint, Pair, TaskSpec
from vtrace.ovn.databases import OvnDatabases
from vtrace.ovn.dscp import dscp_users, inheriting_tunnels
from vtrace.ovn.endpoints import EndpointResolver
from vtrace.ovn.objects import ObjectResolver
from vtrace.ovn.ovsdb import Database
from vtrace.ovn.topology import InventoryReader
from vtrace.ovn.watch import TopologyWatch
from vtrace.ovs.bridge import read_bridge
from vtrace.plain import inventory_file
from vtrace.plain.objects import PlainObjects
from vtrace.plain.topology import read_topology
from vtrace.plain.topology import resolve as resolve_plain
from vtrace.task import admission

DEFAULT_LAB = "lab"
DEFAULT_BRIDGE = "br-int"
DEFAULT_RUNDIR = "/var/run/openvswitch"


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A server with a bridge that this process can reach."""

    rundir: str
    bridge: str
    region: str = ""
    chassis: str = ""


class Cloud(msgspec.Struct, frozen=True, kw_only=True):
    """Where the OVN databases and the bridges are."""

    nb: str
    sb: str
    servers: tuple[Server, ...]
    plain: PlainCloud | None = None


def plain_cloud(path: str) -> Cloud:
    """The cloud that an inventory file lists: bridges without OVN.

    Raises:
        UsageError: the file is not right.
        CannotWorkError: no root.
    """
    _require_root()
    return Cloud(nb="", sb="", servers=(), plain=inventory_file.read(path))


def _require_root() -> None:
    if os.geteuid() != 0:
        raise CannotWorkError(
            "VTrace needs root", "", "the bridges' sockets belong to root", "Run it with sudo, or as root"
        )


def find_cloud(*, lab: str | None, nb: str | None, sb: str | None, rundir: str | None, bridge: str) -> Cloud:
    """The cloud to work on: what is given, else the lab, else this server and its databases.

    Raises:
        CannotWorkError: no root, the lab is not up, or nothing is configured.
    """
    _require_root()
    if lab and (rundir or bridge != DEFAULT_BRIDGE):
        raise UsageError("--lab and --rundir or --bridge contradict each other", "--lab", "a lab has its own bridges")
    nb, sb = nb or os.environ.get("OVN_NB_DB"), sb or os.environ.get("OVN_SB_DB")
    named = lab or os.environ.get("VTRACE_LAB")
    if named or not (nb or sb or rundir):
        state = lab_state.load(named or DEFAULT_LAB)
        if state is not None and state.kind == "plain":
            return plain_cloud(str(lab_state.inventory_file(state.name)))
        if state is not None:
            servers = tuple(
                Server(rundir=str(s.rundir), bridge=s.bridge, region=s.region, chassis=s.chassis) for s in state.servers
            )
            return Cloud(nb=nb or state.nb_remote, sb=sb or state.sb_remote, servers=servers)
        if named:
            raise CannotWorkError(f"The lab {named!r} is not up", "--lab", "", f"vtrace lab up --lab {named}")
    if not nb or not sb:
        raise CannotWorkError(
            "No cloud is configured, and no lab is up",
            "--nb, --sb" if nb or sb else "",
            "the OVN databases are not given",
            "Give --nb and --sb (or OVN_NB_DB and OVN_SB_DB), or try `vtrace lab up`",
        )
    here = rundir_or_fail(rundir or os.environ.get("OVS_RUNDIR") or DEFAULT_RUNDIR)
    return Cloud(nb=nb, sb=sb, servers=(Server(rundir=here, bridge=bridge),))


async def diagnose(spec: TaskSpec, cloud: Cloud, progress: Progress, records: Path | None = None) -> Answer:
    """Runs one task to its answer; leaves nothing on any bridge.

    Args:
        records: a file that takes all log records and what the chassis said of them (docs/records.md).

    Raises:
        UsageError, CannotWorkError: nothing was changed.
    """
    started_ns = time.time_ns()
    spec = msgspec.structs.replace(spec, task_id=secrets.token_hex(8))
    admission.check(spec)
    await anyio.to_thread.run_sync(kept_code.make_whole, progress)
    if cloud.plain is not None:
        return await _diagnose_plain(spec, cloud.plain, progress, started_ns, records)
    databases = OvnDatabases(Database(cloud.nb, "OVN_Northbound"), Database(cloud.sb, "OVN_Southbound"))
    async with AsyncExitStack() as stack:
        stack.callback(databases.close)
        resolver = EndpointResolver(databases)
        pairs = admission.make_pairs(
            spec,
            await _resolve(resolver, spec, spec.sources),
            await _resolve(resolver, spec, spec.destinations),
        )
        pairs = tuple([msgspec.structs.replace(p, elsewhere=await resolver.elsewhere(p)) for p in pairs])
        inventory = await InventoryReader(databases).read([(p.source, p.destination) for p in pairs])
        pairs = admission.translated(pairs, inventory)
        conflicts = await dscp_users(databases.nb, inventory)
        secret = secrets.token_bytes(32)
        hosts = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(hosts.cancel_scope.cancel)
        crew = _Crew(spec, cloud, databases, secret, hosts)
        stack.callback(crew.close)
        agents, missing = crew.agents, await crew.enlist(inventory)
        for pair in pairs:
            _require_first_hop(pair, inventory, agents)
        for server in cloud.servers:
            facts = await read_bridge(server.rundir, server.bridge) if server.chassis in agents else None
            conflicts += inheriting_tunnels(facts.tunnels) if facts else []
        admission.refuse_dscp_conflict(conflicts, allowed=spec.allow_dscp_conflict)
        runner = TaskRunner(spec, pairs, agents, inventory, ObjectResolver(databases, inventory), progress, crew)
        runner.keeps_records = records is not None
        case = await _run(runner, agents)
        found = attribute(case)
        left = await _close(agents, inventory, runner.outcome.notes)
    outcome = runner.outcome
    if records is not None:
        _keep(records, spec, case, outcome)
    for server_name in missing:
        outcome.notes.append(f"{server_name}: the traffic can reach it, and no agent covers it")
    return _answer(spec, pairs, found, outcome, started_ns, left)


async def _diagnose_plain(
    spec: TaskSpec, cloud: PlainCloud, progress: Progress, started_ns: int, records: Path | None
) -> Answer:
    """`diagnose` on bridges without OVN."""
    ends = [
        [e for text in texts for e in resolve_plain(cloud, text, spec.traffic.ip_version)]
        for texts in (spec.sources, spec.destinations)
    ]
    pairs = admission.make_pairs(spec, ends[0], ends[1])
    topology = await read_topology(cloud, [(p.source, p.destination) for p in pairs])
    inventory = topology.inventory
    secret, hold_s = secrets.token_bytes(32), int(spec.timeout_s) + 4 * TIME_STEP_S
    async with AsyncExitStack() as stack:
        agents: dict[str, PlainAgent] = {}
        conflicts: list[str] = []
        for bridge in topology.bridges:
            agent = await stack.enter_async_context(PlainAgent.at(bridge, secret, spec.task_id, hold_s))
            agents[bridge.chassis] = agent
            conflicts += [*await agent.dscp_users(), *inheriting_tunnels(bridge.links)]
        for pair in pairs:
            _require_first_hop(pair, inventory, agents)
        admission.refuse_dscp_conflict(conflicts, allowed=spec.allow_dscp_conflict)
        runner = TaskRunner(spec, pairs, agents, inventory, PlainObjects(inventory), progress)
        runner.keeps_records = records is not None
        case = await _run(runner, agents)
        found = attribute(case)
        left = await _close(agents, inventory, runner.outcome.notes)
    if records is not None:
        _keep(records, spec, case, runner.outcome)
    runner.outcome.notes += runner.bridge_notes()
    return _answer(spec, pairs, found, runner.outcome, started_ns, left)


def _keep(path: Path, spec: TaskSpec, case: Case, outcome: Outcome) -> None:
    """Writes what a task logged to a file; the answer does not depend on it."""
    # Imported here: only who asks for it waits for Parquet.
    from vtrace.collect.writing import write_records
    from vtrace.model.record_schema import to_table

    ends = [end for cost in outcome.costs.values() for end in cost.streams]
    try:
        write_records(path, to_table(outcome.records), ends, evidence_records(case, spec.task_id))
    except UsageError as error:
        outcome.notes.append(f"the records were not kept: {error}")


async def _run(runner: TaskRunner, agents: Mapping[str, ChassisAgent]) -> Case:
    """Runs a task. Its agents know then, also if it is broken off, which servers hang."""
    try:
        return await runner.run()
    finally:
        for name, agent in agents.items():
            agent.hangs = name in runner.silent_servers
            # What a server that hangs has colored, or holds colored, goes on when it does. One that has ended may get
            # its entries back: `ovs-ctl restart` saves them.
            agent.restores_on_s = 0 if agent.hangs else runner.may_color_on_s


async def _close(agents: Mapping[str, ChassisAgent], inventory: Inventory, notes: list[str]) -> int:
    """Ends all agents at once; how many entries of ours are left."""
    left: list[int] = []

    async def end(agent: ChassisAgent) -> None:
        try:
            with anyio.fail_after(HANGING_TIMEOUT_S if agent.hangs else CLOSE_TIMEOUT_S):
                found = (await agent.close()).entries_left
            left.append(found)
            if found and agent.restores_on_s:
                notes.append(
                    f"{inventory.server(agent.chassis)}: {found} entries that take the color off stay for "
                    f"{agent.restores_on_s} s, since another server stopped to answer"
                )
        except (VTraceError, TimeoutError) as error:
            agent.hangs = True
            why = str(error) or "its Open vSwitch does not answer"
            server = inventory.server(agent.chassis)
            notes.append(f"{server}: not everything could be removed, it times out: {why}")

    async with anyio.create_task_group() as group:
        for agent in agents.values():
            group.start_soon(end, agent)
    return sum(left)


async def _resolve(resolver: EndpointResolver, spec: TaskSpec, texts: tuple[str, ...]) -> list[Endpoint]:
    found: list[Endpoint] = []
    for text in texts:
        endpoints = await resolver.resolve(text, spec.traffic.ip_version)
        if not endpoints:
            raise UsageError(f"No VM has an address in {text!r}", "endpoint")
        found += endpoints
    return found


class _Crew:
    """The agents of one task: those it began with, and those that a changed topology calls for.

    Attributes:
        agents: by chassis name.
    """

    def __init__(
        self, spec: TaskSpec, cloud: Cloud, databases: OvnDatabases, secret: bytes, hosts: anyio.abc.TaskGroup
    ) -> None:
        self._spec = spec
        self._cloud = cloud
        self._databases = databases
        self._secret = secret
        self._hosts = hosts
        self._watch = TopologyWatch(databases)
        self.agents: dict[str, ChassisAgent] = {}

    async def enlist(self, inventory: Inventory) -> list[str]:
        """Starts an agent for every chassis that the traffic can reach; the servers of those that can't have one."""
        wanted = sorted({chassis for p in inventory.ports for chassis in (p.chassis, *p.standby) if chassis})
        for server in self._cloud.servers if set(wanted) - set(self.agents) else ():
            name = server.chassis or (await read_bridge(server.rundir, server.bridge)).system_id
            if name in wanted and name not in self.agents:
                self.agents[name] = await self._hosts.start(self._host, server)
        return [inventory.server(name) for name in wanted if name not in self.agents]

    async def _host(self, server: Server, *, task_status: anyio.abc.TaskStatus[ChassisAgent]) -> None:
        """Keeps an agent running until the task group ends."""
        hold_s = int(self._spec.timeout_s) + 4 * TIME_STEP_S
        async with ChassisAgent.running(
            server.rundir, server.bridge, server.region, self._secret, self._spec.task_id, hold_s
        ) as agent:
            task_status.started(agent)
            await anyio.sleep_forever()

    async def begin(self, inventory: Inventory, pairs: Sequence[Pair]) -> None:
        """Watches what this inventory was made of, for these pairs."""
        ends = [name for pair in pairs for end in (pair.source, pair.destination) for name in end.ports]
        await self._watch.begin(inventory, ends)

    async def changed(self) -> bool:
        """Waits until something of it changed; whether a port of it moves."""
        return await self._watch.changed()

    async def read(self, pairs: Sequence[Pair]) -> tuple[tuple[Pair, ...], Inventory]:
        """These pairs, VIPs with the backends they have now, and the topology around them, as it is now."""
        resolver = EndpointResolver(self._databases)
        now = [
            msgspec.structs.replace(
                pair,
                source=await self._refreshed(resolver, pair.source),
                destination=await self._refreshed(resolver, pair.destination),
            )
            for pair in pairs
        ]
        return tuple(now), await InventoryReader(self._databases).read([(p.source, p.destination) for p in now])

    async def _refreshed(self, resolver: EndpointResolver, end: Endpoint) -> Endpoint:
        """An endpoint behind a VIP with all backends that it had or has."""
        if end.port or not end.only:
            return end
        found = [e for e in await resolver.resolve(end.name, self._spec.traffic.ip_version) if e.only == end.only]
        now = found[0] if found else end
        return msgspec.structs.replace(
            end,
            members=tuple(dict.fromkeys((*end.members, *now.members))),
            addresses=tuple(dict.fromkeys((*end.addresses, *now.addresses))),
            aliases=tuple(dict.fromkeys((*end.aliases, *now.aliases))),
        )

    async def cover(self, inventory: Inventory) -> dict[str, ChassisAgent]:
        """Agents for the chassis of an inventory that had none yet and can be reached."""
        before = set(self.agents)
        await self.enlist(inventory)
        return {name: agent for name, agent in self.agents.items() if name not in before}

    def close(self) -> None:
        """Ends the watch; the agents end with their task group."""
        self._watch.close()


def _require_first_hop(pair: Pair, inventory: Inventory, agents: Mapping[str, ChassisAgent]) -> None:
    """Checks that there is an agent where the pair's packets first meet a virtual device.

    Raises:
        CannotWorkError: there is none.
    """
    source = pair.source
    ends = inventory.ends(source)
    places = {c for p in ends for c in (inventory.entrances(p) if source.outside else (p.chassis, *p.standby)) if c}
    if source.outside and pair.destination.ports:
        places |= {p.chassis for p in inventory.ends(pair.destination) if p.chassis}
    if source.outside and not ends:
        raise CannotWorkError(
            f"{source.name} is outside, and nothing leads there from {pair.destination.name}",
            source.name,
            "no switch that its traffic can reach has a port to a physical network (localnet)",
            "Name a VM, or see `ovn-nbctl show`",
        )
    if not places:
        raise CannotWorkError(
            f"No server has bound {source.name} ({', '.join(source.ports) or 'no gateway'}), so nothing of it can be "
            "colored",
            source.name,
            "",
            f"ovn-sbctl find Port_Binding logical_port={next(iter(source.ports), '')}",
        )
    if not places & set(agents):
        servers = ", ".join(sorted(inventory.server(c) for c in places))
        raise CannotWorkError(
            f"No agent covers the server {servers}, where the packets of {source.name} come in",
            source.name,
            "this process reaches only the local bridge",
            "Run vtrace on that server",
        )


def _answer(
    spec: TaskSpec, pairs: tuple[Pair, ...], found: Attribution, outcome: Outcome, started_ns: int, left: int
) -> Answer:
    costs = outcome.costs.values()
    directions = "both" if len(spec.directions) == 2 else spec.directions[0].word
    return Answer(
        task=TaskAnswer(
            id=spec.task_id,
            state=outcome.state.value,
            from_=spec.sources,
            to=spec.destinations,
            five_tuple=_five_tuple(spec, pairs),
            direction=directions,
            packets_asked=spec.packets,
            started=rfc3339(started_ns),
            finished=rfc3339(time.time_ns()),
        ),
        loss=found.loss,
        loss_ratio=found.loss_ratio,
        pattern=found.pattern,
        packets=found.packets,
        verdicts=found.verdicts,
        pairs=found.pairs,
        paths=found.paths,
        contrast=found.contrast,
        cost=Cost(
            entries_installed=sum(c.entries_installed for c in costs),
            entries_left=left,
            packets_colored_beyond_n=outcome.beyond_n,
            packets_for_others=found.for_others,
            packets_in_doubt=outcome.packets_in_doubt,
            copies_cut=sum(c.copies_cut + c.first_copies_cut for c in costs),
            log_bytes=outcome.log_bytes,
            log_records_lost=sum(c.records_lost for c in costs),
            time_to_verdict_s=round(process_age_s(), 3),
        ),
        changes=tuple(outcome.changes),
        notes=tuple(dict.fromkeys(outcome.notes)),
    )


def _five_tuple(spec: TaskSpec, pairs: tuple[Pair, ...]) -> dict[str, object]:
    traffic = spec.traffic
    first = pairs[0]
    one = len({(p.source.address, p.destination.address) for p in pairs if p.direction == first.direction}) == 1
    return {
        "proto": traffic.proto or None,
        "src": first.source.address if one else None,
        "dst": first.destination.address if one else None,
        "sport": traffic.sport,
        "dport": traffic.dport,
    }


def process_age_s() -> float:
    """Seconds since this process started (proc(5), stat, field 22)."""
    with open("/proc/self/stat", encoding="ascii") as file:
        started_ticks = int(file.read().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")
