"""What a host's state means for VTrace: pure, one function a check.

Where a datapath was never run with VTrace (docs/compatibility.md), the finding says what is expected to differ there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from vtrace.agent.claims import is_our_meter, meters_in_use
from vtrace.agent.survey import colors_used, entries_at_top
from vtrace.color import registry
from vtrace.doctor.clock import FIRST_YEAR
from vtrace.doctor.finding import Finding, Level, from_error
from vtrace.doctor.host import Host
from vtrace.model.openflow import InstalledEntry
from vtrace.ovs.flowtext import is_decimal

# Versions that the tests of this repository ran with; docs/compatibility.md.
RUN_OVS = ("3.1", "3.5")
RUN_OVN = ("23.03", "25.03")
OLDEST_OVS = (3, 1)
FEW_COLORS = 2
BUSY = 0.5
SLOW_ANSWER_S = 0.5
CT_FULL = 0.9
# Geneve with OVN's option, IPv4, UDP and Ethernet (ovn-architecture(7)).
TUNNEL_BYTES = 58
# What the datapath must do for our entries (dpif/show-dp-features).
_NEEDED_FEATURES = ("Ufid", "Masked set action", "Recirc", "CT state", "CT zone")
_TEXT = 200

Judge = Callable[[Host], Iterator[Finding]]


def judge(host: Host) -> list[Finding]:
    """All findings on a host."""
    found = [from_error(check, host.server, error, _level(host, check)) for check, error in host.failures.items()]
    for one in JUDGES:
        found += one(host)
    return found


def _level(host: Host, check: str) -> Level:
    """How bad it is that something could not be read."""
    if check == "layout" and host.database is not None and not any(i.logical for i in host.database.interfaces):
        # OVN writes the stages when the first logical port is bound: no traffic of a task can be here before.
        return "note"
    return "warning" if check == "datapath" else "problem"


def _finding(
    host: Host, level: Level, check: str, what: str, why: str = "", next_step: str = "", at: str = ""
) -> Finding:
    where = f"{host.server}: {at}" if at else host.server
    return Finding(level=level, check=check, where=where, what=what, why=why, next_step=next_step)


def privileges(host: Host) -> Iterator[Finding]:
    if host.is_root:
        names = ", ".join(need.capability for need in host.keeps)
        kept = f"a task keeps {names or 'no capability'}"
        yield _finding(host, "ok", "privileges", f"root: the sockets of Open vSwitch can be used; {kept}")
    else:
        why = "the sockets of Open vSwitch belong to root"
        yield _finding(host, "problem", "privileges", "not root", why, "Run it with sudo, or as root")


def versions(host: Host) -> Iterator[Finding]:
    if host.switch_version:
        yield _version(host, "Open vSwitch", host.switch_version, RUN_OVS)
        if _numbers(host.switch_version) < OLDEST_OVS:
            yield _finding(
                host, "problem", "versions", f"Open vSwitch {host.switch_version} is too old",
                "flow monitors for OpenFlow 1.3 came with 3.1", "Upgrade Open vSwitch",
            )  # fmt: skip
        if host.tool_version and _numbers(host.tool_version) != _numbers(host.switch_version):
            yield _finding(
                host, "note", "versions", f"ovs-ofctl is {host.tool_version}, ovs-vswitchd {host.switch_version}",
                "their texts may differ", "Use the tools of the daemon's version",
            )  # fmt: skip
    if host.controller_version:
        yield _version(host, "OVN", host.controller_version, RUN_OVN)


def _version(host: Host, name: str, version: str, known: tuple[str, ...]) -> Finding:
    if ".".join(version.split(".")[:2]) in known:
        return _finding(host, "ok", "versions", f"{name} {version}")
    return _finding(
        host, "warning", "versions", f"{name} {version} was never run with VTrace", f"run were {', '.join(known)}",
        "Look whether `layout` below is fine, and begin with a lab of this version",
    )  # fmt: skip


def _numbers(version: str) -> tuple[int, ...]:
    words = version.split(".")[:2]
    return tuple(int(word) for word in words) if all(map(is_decimal, words)) else (0, 0)


def _max_meter(words: Sequence[str]) -> int:
    """What stands behind `max_meter` among the words of the meter features; 0 where it is no number."""
    values = [after for name, after in pairwise(words) if name == "max_meter" and is_decimal(after)]
    return int(values[0]) if values else 0


def datapath(host: Host) -> Iterator[Finding]:
    database = host.database
    if database is None:
        return
    if database.is_userspace and not database.has_dpdk:
        yield _finding(host, "ok", "datapath", f"userspace datapath ({database.datapath_type})")
    elif not database.is_userspace:
        yield _finding(
            host, "warning", "datapath", "the kernel's datapath was never run with VTrace",
            "copies go through the kernel's upcall queues, and packets do not wait for theirs; a packet that "
            "segmentation offload left long is one record; one that conntrack has no room for is dropped",
            "Try it on a host of little traffic first, with --packets 10",
        )  # fmt: skip
    if database.has_dpdk:
        yield _finding(
            host, "warning", "datapath", "DPDK was never run with VTrace",
            "a polling thread makes the upcall of each copy itself, so that a copy costs its other traffic time",
            "Try it with --packets 10, and watch `ovs-appctl dpif-netdev/pmd-stats-show`",
        )  # fmt: skip
    if database.offloads:
        yield _finding(
            host, "warning", "datapath", "hardware offload (hw-offload=true) was never run with VTrace",
            "a flow with copies can't be offloaded: while a color is live the armed ports' packets may go through "
            "software, and counters of offloaded flows come late",
            "Arm few VMs at a time, and watch `ovs-appctl dpctl/dump-flows type=offloaded`",
        )  # fmt: skip
    if missing := [name for name in _NEEDED_FEATURES if host.dp_features.get(name, "Yes") == "No"]:
        yield _finding(
            host, "problem", "datapath", f"the datapath lacks {', '.join(missing)}",
            "entries of VTrace and of OVN need it", "Use a newer kernel, or the userspace datapath",
        )  # fmt: skip
    nesting = host.dp_features.get("Sample nesting", "10")
    if is_decimal(nesting) and int(nesting) < 2 and host.dp_features.get("Clone action", "Yes") == "No":
        yield _finding(
            host, "problem", "datapath", "the datapath can neither clone nor nest samples",
            "a metered copy within a clone would not be made as asked", "Use a newer kernel",
        )  # fmt: skip


def openflow(host: Host) -> Iterator[Finding]:
    database = host.database
    if database is not None and database.protocols and "OpenFlow13" not in database.protocols:
        yield _finding(
            host, "problem", "openflow", f"bridge {host.bridge} does not speak OpenFlow 1.3",
            f"its protocols are {', '.join(database.protocols)}",
            f"ovs-vsctl add bridge {host.bridge} protocols OpenFlow13",
        )  # fmt: skip
    if host.drops_fragments:
        yield _finding(
            host, "note", "openflow", "the bridge drops every fragment",
            "fragments of a task's packets end there, and the answer says so", "ovs-ofctl get-frags shows it",
        )  # fmt: skip


def layout(host: Host) -> Iterator[Finding]:
    found = host.layout
    if found is None:
        return
    yield _finding(
        host, "ok", "layout",
        f"tables 0, {found.remote_output} (remote output), {found.log_to_physical} (log-to-physical); guard bits "
        f"{found.guard.lsb} and {found.guard.lsb + 1} of reg{found.guard.register}",
    )  # fmt: skip
    for text in entries_at_top(host.entries):
        yield _finding(
            host, "note", "layout", "an entry of somebody else has our own priority", text[:_TEXT],
            "Which of two such entries wins is undefined: give it a lower one",
        )  # fmt: skip


def meters(host: Host) -> Iterator[Finding]:
    if "openflow" in host.failures:
        return
    words = host.meter_features.replace(":", " ").split()
    largest = _max_meter(words)
    if largest <= 0 or "drop" not in words or "pktps" not in words or "burst" not in words:
        yield _finding(
            host, "problem", "meters", "the bridge has no meters that count packets",
            "copies of packets could not be bounded", "Use a datapath with meters: userspace, or Linux 4.18 or later",
        )  # fmt: skip
        return
    lowest = max(largest - registry.METER_ID_SPAN, largest // 2)
    taken = {m.meter_id for m in host.meters} | (host.named.meters if host.named else set())
    free = largest - lowest - sum(1 for meter in taken if lowest < meter <= largest)
    theirs = sorted(m.meter_id for m in host.meters if not is_our_meter(m, largest))
    if free < 2:
        yield _finding(
            host, "problem", "meters", f"no meter id is free from {lowest + 1} to {largest}",
            "each task needs two; ids of others are never taken", "Free some, or wait until other tasks have ended",
        )  # fmt: skip
    else:
        shown = f"; others have {len(theirs)}, up to {theirs[-1]}" if theirs else ""
        yield _finding(host, "ok", "meters", f"{free} meter ids free, up to {largest}{shown}")


def colors(host: Host) -> Iterator[Finding]:
    if "openflow" in host.failures:
        return
    used = colors_used(host.entries)
    free = len(registry.POOL_2) - len(used)
    level: Level = "problem" if free <= 0 else "warning" if free <= FEW_COLORS else "ok"
    what = f"{max(0, free)} of {len(registry.POOL_2)} colors free"
    if level == "ok":
        yield _finding(host, "ok", "colors", what)
    else:
        why = f"tasks that run hold {', '.join(map(str, used))}"
        yield _finding(host, level, "colors", what, why, "Wait until other tasks have ended")


def controllers(host: Host) -> Iterator[Finding]:
    for one in host.database.controllers if host.database else ():
        state = "connected" if one.connected else "not connected"
        yield _finding(
            host, "warning", "controllers", f"bridge {host.bridge} has a controller, {one.target}",
            f"it is {state}{f', as {one.role}' if one.role else ''}. It gets none of our packet-ins, but a flow "
            "monitor of its own shows it our entries, and it may delete what it does not know",
            "Ask who runs it; a task notices deleted entries and puts them back",
        )  # fmt: skip
    like_ours = [e for e in host.entries if registry.is_ours(e.cookie) and not _is_ours(e)]
    for entry in like_ours[:3]:
        yield _finding(
            host, "warning", "controllers",
            f"somebody else's entry has a cookie that begins as ours do: 0x{entry.cookie:x}",
            f"table {entry.table}, {entry.match or 'any packet'}"[:_TEXT],
            "It is left alone. Find out who adds it: 0x5654 in the upper 16 bits is meant to be VTrace's",
        )  # fmt: skip


def _is_ours(entry: InstalledEntry) -> bool:
    return registry.is_our_entry(entry.cookie, entry.hard_timeout_s)


def tunnels(host: Host) -> Iterator[Finding]:
    database = host.database
    if database is None:
        return
    found = [i for i in database.interfaces if i.is_tunnel and i.bridge == host.bridge]
    for one in found:
        if one.options.get("tos") == "inherit":
            yield _finding(
                host, "warning", "tunnels", "the tunnel copies the inner TOS byte to the outer header",
                "the color would be seen, and perhaps acted on, by the physical network",
                f"ovs-vsctl remove interface {one.name} options tos; else tasks need --allow-dscp", at=one.name,
            )  # fmt: skip
        if one.error:
            yield _finding(
                host, "warning", "tunnels", "Open vSwitch could not set the tunnel up", one.error,
                "What goes by it is lost", at=one.name,
            )  # fmt: skip
    if database.own("ovn-encap-tos"):
        yield _finding(
            host, "warning", "tunnels", f"ovn-encap-tos is {database.own('ovn-encap-tos')!r}",
            "with `inherit` tunnels copy the color to the outer header",
            "ovs-vsctl remove open . external_ids ovn-encap-tos; else tasks need --allow-dscp",
        )  # fmt: skip
    if not any(f.options.get("tos") == "inherit" or f.error for f in found):
        yield _finding(host, "ok", "tunnels", f"{len(found)} tunnels, none inherits the TOS byte")


def sizes(host: Host) -> Iterator[Finding]:
    database = host.database
    if database is None:
        return
    vifs = [i.mtu for i in database.interfaces if i.logical and i.mtu]
    cards = [
        i for i in database.interfaces if not i.logical and i.mtu and i.bridge != host.bridge and i.kind != "internal"
    ]
    if vifs and cards:
        least = min(cards, key=lambda i: i.mtu)
        if max(vifs) + TUNNEL_BYTES > least.mtu:
            yield _finding(
                host, "note", "mtu",
                f"interfaces of VMs take up to {max(vifs)} bytes, {least.name} {least.mtu}",
                f"a packet in a tunnel is {TUNNEL_BYTES} bytes longer: large ones are lost, unless the guests' own MTU "
                "is smaller",
                "Give guests an MTU that leaves room, or the network a larger one",
            )  # fmt: skip
    long = host.long_packets or (("all",) if database.other_config.get("userspace-tso-enable") == "true" else ())
    if long:
        names = ", ".join(long[:5]) + ("…" if len(long) > 5 else "")
        yield _finding(
            host, "note", "offload", f"segmentation offload is on for {names}",
            "a long packet is one record, and only its first segment keeps IP id, sequence and payload",
            "For a TCP question ask with --tcp-flags +syn, or turn offload off on the VIF for that time",
        )  # fmt: skip


def conntrack(host: Host) -> Iterator[Finding]:
    if host.ct_used < 0 or host.ct_limit <= 0 or host.database is None:
        return
    zones = sum(1 for key in host.database.bridge_ids if key.startswith("ct-zone-"))
    what = f"conntrack has {host.ct_used} of {host.ct_limit} connections, {zones} zones of OVN"
    if host.ct_used >= CT_FULL * host.ct_limit:
        yield _finding(
            host, "warning", "conntrack", what, "new connections find no room, whatever VTrace does",
            "ovs-appctl dpctl/ct-set-maxconns raises the limit",
        )  # fmt: skip
    else:
        yield _finding(host, "ok", "conntrack", what)


def leftovers(host: Host) -> Iterator[Finding]:
    ours = [entry for entry in host.entries if _is_ours(entry)]
    if ours:
        runs = {registry.generation_of(entry.cookie) for entry in ours}
        last_s = max(entry.hard_timeout_s - entry.duration_s for entry in ours)
        yield _finding(
            host, "note", "leftovers", f"{len(ours)} entries of {len(runs)} tasks of VTrace are there",
            f"tasks that run, or that were killed: the last entry is gone in {max(0, last_s):.0f} s", "Nothing to do",
        )  # fmt: skip
    words = host.meter_features.replace(":", " ").split()
    largest = _max_meter(words)
    in_use = meters_in_use(ours, host.meters)
    dead = [m.meter_id for m in host.meters if is_our_meter(m, largest) and m.meter_id not in in_use]
    if dead:
        yield _finding(
            host, "note", "leftovers", f"meters of a dead agent: {', '.join(map(str, dead))}",
            "meters have no time-out; no entry uses them", "The next task removes them",
        )  # fmt: skip
    if not ours and not dead:
        yield _finding(host, "ok", "leftovers", "no entry or meter of VTrace is there")


def load(host: Host) -> Iterator[Finding]:
    found = host.load
    if found is None:
        return
    answer_ms = found.answer_s * 1000
    what = f"ovs-vswitchd's main thread takes {found.main_busy:.0%} of a core, and answers in {answer_ms:.0f} ms"
    if found.main_busy > BUSY or found.answer_s > SLOW_ANSWER_S:
        why = "VTrace's dumps and traces run in that thread"
        yield _finding(host, "warning", "load", what, why, "Find out what keeps it busy before you diagnose here")
    else:
        yield _finding(host, "ok", "load", what)
    if found.overflows > 0:
        yield _finding(
            host, "warning", "load", f"{found.overflows:g} packet-ins a second found no room in the last minute",
            "the bridge's queue is shared with ovn-controller: copies would be lost, and its packets too",
            "ovs-appctl coverage/show packet_in_overflow; see what sends so many packets to controllers",
        )  # fmt: skip


def clock(host: Host) -> Iterator[Finding]:
    found = host.clock
    if found is None:
        return
    if found.year < FIRST_YEAR or abs(found.stepped_s) >= 1:
        yield _finding(
            host, "warning", "clock",
            f"the clock says {found.year}, and stepped by {found.stepped_s:g} s while we looked",
            "times in records and answers would be wrong; no verdict depends on them", "Synchronize it",
        )  # fmt: skip
    elif found.synchronized is False:
        yield _finding(
            host, "note", "clock", "the kernel says that the clock is not synchronized",
            "times in answers are this host's; no verdict depends on them, since no two clocks are compared",
            "Run chrony or ntpd",
        )  # fmt: skip
    else:
        yield _finding(host, "ok", "clock", "the clock is plausible")


def controller(host: Host) -> Iterator[Finding]:
    if host.controller_state:
        yield _finding(
            host, "warning", "ovn-controller", f"ovn-controller {host.controller_state}",
            "the bridge's entries may be old", "ovn-appctl -t ovn-controller connection-status",
        )  # fmt: skip
    else:
        yield _finding(host, "ok", "ovn-controller", "ovn-controller is connected and at work")


JUDGES: tuple[Judge, ...] = (
    privileges,
    versions,
    datapath,
    openflow,
    layout,
    meters,
    colors,
    controllers,
    tunnels,
    sizes,
    conntrack,
    leftovers,
    load,
    clock,
    controller,
)
