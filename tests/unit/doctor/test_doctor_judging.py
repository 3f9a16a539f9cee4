"""What the doctor makes of a host's state: each finding, and the near-miss that must not be one."""

from __future__ import annotations

from typing import Any

import pytest
from builders import installed

from vtrace.agent.privileges import Need
from vtrace.color.registry import COPY_RATE_PPS, FIRST_RATE_PPS, POOL_2, Role, cookie
from vtrace.doctor.clock import Clock
from vtrace.doctor.cloud import CloudRows, judge_cloud
from vtrace.doctor.database import HostController, HostDatabase, HostInterface
from vtrace.doctor.finding import Finding, examination
from vtrace.doctor.host import Host, Load, last_word, overflows
from vtrace.doctor.judging import judge
from vtrace.errors import BridgeNotUnderstoodError, CannotWorkError
from vtrace.model.openflow import BridgeLayout, GuardBits, MeterStat, TableId
from vtrace.ovs.named_ids import NamedIds
from vtrace.present.cli.doctor import EXIT_CODES, lines

FEATURES = "max_meter:262144 max_bands:8 max_color:0\nband_types: drop\ncapabilities: kbps pktps burst stats\n"
DATABASE = HostDatabase(
    ovs_version="3.1.0",
    system_id="hv1",
    datapath_type="netdev",
    fail_mode="secure",
    bridge_ids={"ct-zone-a": "1", "ovn-nb-cfg": "7"},
    interfaces=(
        HostInterface(name="vm1", bridge="br-int", logical=True, mtu=1400),
        HostInterface(name="ovn-hv2-0", bridge="br-int", kind="geneve", options={"key": "flow"}),
        HostInterface(name="eth1", bridge="br-phy", mtu=1500),
    ),
)


def database(**changes: Any) -> HostDatabase:
    return HostDatabase(**{**{f: getattr(DATABASE, f) for f in DATABASE.__struct_fields__}, **changes})


def host(**changes: Any) -> Host:
    """A host where all is well."""
    fields: dict[str, Any] = {
        "server": "hv1",
        "rundir": "/run/ovs",
        "bridge": "br-int",
        "database": DATABASE,
        "tool_version": "3.1.0",
        "switch_version": "3.1.0",
        "controller_version": "23.03.1",
        "layout": BridgeLayout(
            remote_output=TableId(39), log_to_physical=TableId(65), guard=GuardBits(register=10, lsb=26)
        ),
        "named": NamedIds(),
        "meter_features": FEATURES,
        "dp_features": {"Ufid": "Yes", "Recirc": "Yes", "Sample nesting": "10"},
        "ct_used": 10,
        "ct_limit": 100,
        "load": Load(main_busy=0.1, answer_s=0.01, overflows=0),
        "clock": Clock(year=2026, synchronized=True),
    }
    return Host(**{**fields, **changes})


def bad(one: Host) -> list[tuple[str, str, str]]:
    """(level, check, what) of all that is not as it should be."""
    return [(f.level, f.check, f.what) for f in judge(one) if f.level != "ok"]


def test_a_host_where_all_is_well() -> None:
    found = judge(host())
    assert {f.level for f in found} == {"ok"}
    assert {f.check for f in found} == {
        "privileges", "versions", "datapath", "layout", "meters", "colors", "tunnels", "conntrack", "leftovers", "load",
        "clock", "ovn-controller",
    }  # fmt: skip
    by_check = {f.check: f.what for f in found}
    assert by_check["layout"] == ("tables 0, 39 (remote output), 65 (log-to-physical); guard bits 26 and 27 of reg10")
    assert by_check["meters"] == "512 meter ids free, up to 262144"
    assert by_check["colors"] == "16 of 16 colors free"
    assert all(f.where == "hv1" and not f.why and not f.next_step for f in found)


def test_what_a_task_keeps_of_root_is_told() -> None:
    def said(*keeps: Need) -> str:
        return {f.check: f.what for f in judge(host(keeps=keeps))}["privileges"]

    assert said() == "root: the sockets of Open vSwitch can be used; a task keeps no capability"
    needs = [Need(capability=name, why="x") for name in ("CAP_SYS_ADMIN", "CAP_SYS_PTRACE")]
    assert said(*needs).endswith("; a task keeps CAP_SYS_ADMIN, CAP_SYS_PTRACE")


METERED = "controller(id=20485,meter_id={})"
LIVE = [
    installed(f"ip actions={METERED.format(262144)},{METERED.format(262143)}", cookie=cookie(Role.CLAIM, 5, color=3),
              hard_timeout_s=40),
]  # fmt: skip
OUR_METERS = (
    MeterStat(meter_id=262144, rate_pps=FIRST_RATE_PPS, burst_packets=25),
    MeterStat(meter_id=262143, rate_pps=COPY_RATE_PPS, burst_packets=50),
)
THEIR_METERS = tuple(MeterStat(meter_id=n, rate_pps=500) for n in range(262144, 262144 - 511, -1))
TUNNEL = HostInterface(name="ovn-hv2-0", bridge="br-int", kind="geneve", options={"tos": "inherit"})
CASES: dict[str, tuple[dict[str, Any], list[tuple[str, str, str]]]] = {
    "not root": ({"is_root": False}, [("problem", "privileges", "not root")]),
    "an old switch": (
        {"switch_version": "3.0.5", "tool_version": "3.0.5"},
        [
            ("warning", "versions", "Open vSwitch 3.0.5 was never run with VTrace"),
            ("problem", "versions", "Open vSwitch 3.0.5 is too old"),
        ],
    ),
    "a newer switch": (
        {"switch_version": "3.6.1", "tool_version": "3.6.1"},
        [("warning", "versions", "Open vSwitch 3.6.1 was never run with VTrace")],
    ),
    "Debian 13": ({"switch_version": "3.5.0", "tool_version": "3.5.0", "controller_version": "25.03.0"}, []),
    "other tools": (
        {"switch_version": "3.5.0"},
        [("note", "versions", "ovs-ofctl is 3.1.0, ovs-vswitchd 3.5.0")],
    ),
    "an OVN never run": (
        {"controller_version": "24.09.2"},
        [("warning", "versions", "OVN 24.09.2 was never run with VTrace")],
    ),
    "the kernel's datapath": (
        {"database": database(datapath_type="system")},
        [("warning", "datapath", "the kernel's datapath was never run with VTrace")],
    ),
    "the kernel's datapath, by default": (
        {"database": database(datapath_type="")},
        [("warning", "datapath", "the kernel's datapath was never run with VTrace")],
    ),
    "DPDK": (
        {"database": database(other_config={"dpdk-init": "true"})},
        [("warning", "datapath", "DPDK was never run with VTrace")],
    ),
    "DPDK, try": (
        {"database": database(other_config={"dpdk-init": "try"})},
        [("warning", "datapath", "DPDK was never run with VTrace")],
    ),
    "no DPDK": ({"database": database(other_config={"dpdk-init": "false"})}, []),
    "a DPDK port": (
        {"database": database(interfaces=(HostInterface(name="v", bridge="br-int", kind="dpdkvhostuserclient"),))},
        [("warning", "datapath", "DPDK was never run with VTrace")],
    ),
    "hardware offload": (
        {"database": database(datapath_type="system", other_config={"hw-offload": "true"})},
        [
            ("warning", "datapath", "the kernel's datapath was never run with VTrace"),
            ("warning", "datapath", "hardware offload (hw-offload=true) was never run with VTrace"),
        ],
    ),
    "no hardware offload": ({"database": database(other_config={"hw-offload": "false"})}, []),
    "a datapath that lacks something": (
        {"dp_features": {"Ufid": "No", "Recirc": "Yes"}},
        [("problem", "datapath", "the datapath lacks Ufid")],
    ),
    "a datapath that can't clone": (
        {"dp_features": {"Sample nesting": "0", "Clone action": "No"}},
        [("problem", "datapath", "the datapath can neither clone nor nest samples")],
    ),
    "one that can clone": ({"dp_features": {"Sample nesting": "0", "Clone action": "Yes"}}, []),
    "no OpenFlow 1.3": (
        {"database": database(protocols=("OpenFlow10", "OpenFlow15"))},
        [("problem", "openflow", "bridge br-int does not speak OpenFlow 1.3")],
    ),
    "OpenFlow 1.3": ({"database": database(protocols=("OpenFlow13", "OpenFlow15"))}, []),
    "fragments": ({"drops_fragments": True}, [("note", "openflow", "the bridge drops every fragment")]),
    "an entry at the top": (
        {"entries": (installed("udp actions=drop", priority=65535),)},
        [("note", "layout", "an entry of somebody else has our own priority")],
    ),
    "no meters": (
        {"meter_features": "max_meter:0\n"},
        [("problem", "meters", "the bridge has no meters that count packets")],
    ),
    "meters of kbps alone": (
        {"meter_features": FEATURES.replace("pktps ", "")},
        [("problem", "meters", "the bridge has no meters that count packets")],
    ),
    "no meter id free": (
        {"meters": THEIR_METERS},
        [("problem", "meters", "no meter id is free from 261633 to 262144")],
    ),
    "two meter ids free": ({"meters": THEIR_METERS[1:]}, []),
    "few colors": (
        {
            "entries": tuple(
                installed("ip actions=drop", cookie=cookie(Role.MATCH, 5, color=c), hard_timeout_s=9)
                for c in POOL_2[:14]
            )
        },
        [
            ("warning", "colors", "2 of 16 colors free"),
            ("note", "leftovers", "14 entries of 1 tasks of VTrace are there"),
        ],
    ),
    "no color": (
        {
            "entries": tuple(
                installed("ip actions=drop", cookie=cookie(Role.MATCH, n + 1, color=c), hard_timeout_s=9)
                for n, c in enumerate(POOL_2)
            )
        },
        [
            ("problem", "colors", "0 of 16 colors free"),
            ("note", "leftovers", "16 entries of 16 tasks of VTrace are there"),
        ],
    ),
    "a second controller": (
        {
            "database": database(
                controllers=(HostController(target="tcp:192.0.2.1:6653", role="master", connected=True),)
            )
        },
        [("warning", "controllers", "bridge br-int has a controller, tcp:192.0.2.1:6653")],
    ),
    "a cookie like ours": (
        {"entries": (installed("ip actions=drop", cookie=0x5654_1001_0000_0007),)},
        [("warning", "controllers", "somebody else's entry has a cookie that begins as ours do: 0x5654100100000007")],
    ),
    "a tunnel that inherits": (
        {"database": database(interfaces=(TUNNEL,))},
        [("warning", "tunnels", "the tunnel copies the inner TOS byte to the outer header")],
    ),
    "another bridge's tunnel": (
        {
            "database": database(
                interfaces=(HostInterface(name="x", bridge="br-x", kind="vxlan", options={"tos": "inherit"}),)
            )
        },
        [],
    ),
    "a tunnel that failed": (
        {
            "database": database(
                interfaces=(HostInterface(name="t", bridge="br-int", kind="geneve", error="could not add"),)
            )
        },
        [("warning", "tunnels", "Open vSwitch could not set the tunnel up")],
    ),
    "ovn-encap-tos": (
        {"database": database(external_ids={"ovn-encap-tos": "inherit"})},
        [("warning", "tunnels", "ovn-encap-tos is 'inherit'")],
    ),
    "ovn-encap-tos for this chassis": (
        {"database": database(external_ids={"ovn-encap-tos-hv1": "inherit"})},
        [("warning", "tunnels", "ovn-encap-tos is 'inherit'")],
    ),
    "ovn-encap-tos for another": ({"database": database(external_ids={"ovn-encap-tos-hv2": "inherit"})}, []),
    "no room for tunnel headers": (
        {
            "database": database(
                interfaces=(
                    HostInterface(name="vm1", bridge="br-int", logical=True, mtu=1443),
                    HostInterface(name="eth1", bridge="br-phy", mtu=1500),
                )
            )
        },
        [("note", "mtu", "interfaces of VMs take up to 1443 bytes, eth1 1500")],
    ),
    "just room": (
        {
            "database": database(
                interfaces=(
                    HostInterface(name="vm1", bridge="br-int", logical=True, mtu=1442),
                    HostInterface(name="eth1", bridge="br-phy", mtu=1500),
                )
            )
        },
        [],
    ),
    "long packets": (
        {"long_packets": ("vm1", "vm2")},
        [("note", "offload", "segmentation offload is on for vm1, vm2")],
    ),
    "userspace TSO": (
        {"database": database(other_config={"userspace-tso-enable": "true"})},
        [("note", "offload", "segmentation offload is on for all")],
    ),
    "conntrack full": (
        {"ct_used": 90},
        [("warning", "conntrack", "conntrack has 90 of 100 connections, 1 zones of OVN")],
    ),
    "conntrack not quite": ({"ct_used": 89}, []),
    "a task at work": (
        {"entries": tuple(LIVE), "meters": OUR_METERS},
        [("note", "leftovers", "1 entries of 1 tasks of VTrace are there")],
    ),
    "meters of a dead agent": (
        {"meters": OUR_METERS},
        [("note", "leftovers", "meters of a dead agent: 262144, 262143")],
    ),
    "meters of others": ({"meters": (MeterStat(meter_id=262144, rate_pps=1000, burst_packets=25),)}, []),
    "a busy switch": (
        {"load": Load(main_busy=0.8, answer_s=0.01, overflows=0)},
        [("warning", "load", "ovs-vswitchd's main thread takes 80% of a core, and answers in 10 ms")],
    ),
    "a slow switch": (
        {"load": Load(main_busy=0.1, answer_s=0.7, overflows=0)},
        [("warning", "load", "ovs-vswitchd's main thread takes 10% of a core, and answers in 700 ms")],
    ),
    "packet-ins lost": (
        {"load": Load(main_busy=0.1, answer_s=0.01, overflows=1.5)},
        [("warning", "load", "1.5 packet-ins a second found no room in the last minute")],
    ),
    "a clock of 1970": (
        {"clock": Clock(year=1970, synchronized=True)},
        [("warning", "clock", "the clock says 1970, and stepped by 0 s while we looked")],
    ),
    "a clock that steps": (
        {"clock": Clock(year=2026, synchronized=True, stepped_s=-5.0)},
        [("warning", "clock", "the clock says 2026, and stepped by -5 s while we looked")],
    ),
    "a clock alone": (
        {"clock": Clock(year=2026, synchronized=False)},
        [("note", "clock", "the kernel says that the clock is not synchronized")],
    ),
    "ovn-controller hangs": (
        {"controller_state": "does not answer"},
        [("warning", "ovn-controller", "ovn-controller does not answer")],
    ),
    "a bridge that is not understood": (
        {
            "layout": None,
            "failures": {"layout": BridgeNotUnderstoodError("not clear", why="two tables", next_step="report it")},
        },
        [("problem", "layout", "not clear")],
    ),
    "a bridge without a port yet": (
        {
            "layout": None,
            "database": database(interfaces=()),
            "failures": {"layout": BridgeNotUnderstoodError("not clear", why="no table", next_step="wait")},
        },
        [("note", "layout", "not clear")],
    ),
    "no socket": (
        {
            "layout": None,
            "meter_features": "",
            "failures": {"openflow": CannotWorkError("can't reach ovs-vswitchd", "br-int.mgmt")},
        },
        [("problem", "openflow", "can't reach ovs-vswitchd")],
    ),
    "a question it does not know": (
        {"failures": {"datapath": CannotWorkError("dpctl/ct-get-nconns failed")}},
        [("warning", "datapath", "dpctl/ct-get-nconns failed")],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_findings(case: str) -> None:
    changes, expected = CASES[case]
    one = host(**changes)
    assert sorted(bad(one)) == sorted(expected)
    for finding in judge(one):
        if finding.level != "ok":
            assert finding.why, "each says why it matters"
            assert finding.where.startswith("hv1")


def test_what_is_wrong_says_what_to_do() -> None:
    """All but what an error has no advice for."""
    for case, (changes, _) in CASES.items():
        for finding in judge(host(**changes)):
            assert finding.level == "ok" or finding.next_step or "failures" in changes, (case, finding)


CHASSIS = {"hv1": "server-1", "hv2": "server-2"}


def cloud(rows: CloudRows, agents: tuple[str, ...] = ("hv1", "hv2"), **controllers: str) -> list[tuple[str, str, str]]:
    found = judge_cloud(rows, agents, controllers)
    return [(f.level, f.check, f.what) for f in found if f.level != "ok"]


def test_a_cloud_where_all_is_well() -> None:
    rows = CloudRows(northd="25.03.0-20.41.0-77.6", chassis=CHASSIS)
    assert cloud(rows, hv1="25.03.0", hv2="25.03.1") == []
    assert {f.check for f in judge_cloud(rows, ("hv1", "hv2"), {})} == {"southbound", "chassis", "dscp"}


def test_findings_of_a_cloud() -> None:
    rows = CloudRows(northd="23.03.1-20.27.0-70.6", chassis=CHASSIS)
    assert cloud(rows, hv1="23.03.1", hv2="25.03.0") == [
        ("note", "versions", "ovn-controllers of 25.03.0 work with ovn-northd 23.03")
    ]
    assert cloud(rows, agents=("hv1",)) == [("warning", "chassis", "1 chassis have no agent: server-2")]
    assert cloud(rows, agents=("hv1", "hv2", "hv9")) == [
        ("problem", "chassis", "the southbound database has no chassis hv9")
    ]
    rows.northd = "24.03.2-1-2"
    assert cloud(rows) == [("warning", "southbound", "ovn-northd 24.03.2-1-2 was never run with VTrace")]
    rows = CloudRows(northd="23.03.1", chassis=CHASSIS, dscp=("ACL 12345678 (ip.dscp == 3)",))
    assert cloud(rows) == [("warning", "dscp", "1 rows read or write ip.dscp: ACL 12345678 (ip.dscp == 3)")]
    rows = CloudRows(failures={"southbound": CannotWorkError("out of reach"), "northbound": CannotWorkError("too")})
    assert cloud(rows) == [("problem", "southbound", "out of reach"), ("problem", "northbound", "too")]


def test_what_programs_print() -> None:
    assert last_word("ovs-vswitchd (Open vSwitch) 3.1.0\n") == "3.1.0"
    assert last_word("ovn-controller 25.03.0\nOpen vSwitch Library 3.5.0\n") == "25.03.0"
    assert last_word("") == ""
    coverage = (
        "packet_in_overflow  1.0/sec  2.500/sec  0.0001/sec  total: 7\nunixctl_received 1/sec 1/sec 1/sec total: 1\n"
    )
    assert overflows(coverage) == 2.5
    assert overflows("99 events never hit\n") == 0


def test_the_worst_comes_first_and_gives_the_exit_code() -> None:
    findings = [
        Finding(level=level, check=str(n), where=where, what="w", why="y" * (level != "ok"))
        for n, (level, where) in enumerate([("ok", "a"), ("note", ""), ("warning", "a"), ("problem", "a"), ("ok", "b")])
    ]  # type: ignore[arg-type]
    found = examination(("a", "b"), findings)
    assert [f.check for f in found.findings] == ["3", "2", "1", "0", "4"]
    assert (found.state, EXIT_CODES[found.state]) == ("cannot_work", 4)
    states = [examination((), [f for f in findings if f.level in levels]).state for levels in
              (("ok", "note", "warning"), ("ok", "note"), ())]  # fmt: skip
    assert [(s, EXIT_CODES[s]) for s in states] == [("warnings", 1), ("fine", 0), ("fine", 0)]


def test_what_servers_have_in_common_is_said_once() -> None:
    findings = [Finding(level="ok", check="colors", where=w, what="16 of 16 colors free") for w in ("hv1", "hv2")]
    findings.append(Finding(level="warning", check="dscp", where="", what="2 rows", why="because", next_step="look"))
    assert lines(examination(("hv1", "hv2"), findings)) == [
        "! dscp: 2 rows",
        "    why: because",
        "    do:  look",
        "✓ colors (hv1, hv2): 16 of 16 colors free",
        "",
        "VTrace can work here; read the warnings first.",
    ]
