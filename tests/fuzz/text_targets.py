"""What Open vSwitch's programs and daemons print, matches of logical flows, and the inventory file."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path

from fuzzing import Target, captured, check, lines, of_text

from vtrace.agent.standing import parse_limits
from vtrace.agent.survey import entries_at_top, local_vifs
from vtrace.agent.ways import neighbors, port_names, tunnel_bytes
from vtrace.doctor.host import last_word, overflows
from vtrace.errors import VTraceError
from vtrace.ovn.expression import Packet, holds
from vtrace.ovs import datapath, flowtext, guard_bits, intake, ipf, layout, ofctl, outputs, plain_layout, queues, trace
from vtrace.ovs.named_ids import NamedIds
from vtrace.ovs.trace_packet import last_seen, look_ups
from vtrace.plain import inventory_file

_BRIDGE = (
    b" cookie=0x0, duration=1.5s, table=0, n_packets=0, n_bytes=0, priority=100,in_port=1,dl_vlan=7"
    b" actions=set_field:0x1->metadata,load:0x1->NXM_NX_REG14[],clone(output:3,resubmit(,10)),learn(table=9)"
    b",controller(id=5,meter_id=7),meter:9\n"
    b" cookie=0x7, table=10, priority=9,reg14=0x1/0x1 actions=group:3,ct(commit,table=11,nat(src=1.0.0.1)),enqueue:1:2"
    b"\n"
    b" cookie=0x5654100100000001, table=11, actions=output:NXM_NX_REG0[4..15],bundle(eth_src,0,hrw,ofport,slaves:1)\n"
)
_GROUPS = (
    b"NXST_GROUP reply:\n group_id=3,type=select,bucket=bucket_id:0,actions=output:1,bucket=bucket_id:1,actions=group:4"
    b"\n group_id=4,type=all,bucket=actions=resubmit(,7)\n"
)
_TABLES = b"reply:\n  table 0:\n    active=11, lookup=77, matched=77\n\n  tables 2...7: ditto\n"
_PORTS = b"reply:\n  port  8: rx pkts=1, bytes=2, drop=?, errs=?\n           tx pkts=6, bytes=474, drop=3\n"
_METERS = b"meter=7 pktps burst stats bands=\ntype=drop rate=100 burst_size=50\n"
_STATS = b"meter:7 flow_count:2 packet_in_count:9 byte_in_count:9 bands:\n0: packet_count:3 byte_count:9\n"
_FDB = b" port  VLAN  MAC                Age\n    1     0  0a:00:00:00:00:01    3\n"
_SS = b"p_raw UNCONN 0 0 *:eth0 * skmem:(r0,rb212992,t0,tb212992,f0,w0,o0,bl0,d17)\n"
_SHOW = (
    b"netdev@ovs-netdev:\n  lookups: hit:1 missed:2 lost:3\n  flows: 0\n  port 0: ovs-netdev (tap)\n  port 2: phy0\n"
)
_DEV = b"Inter-|\n face |bytes\n  eth0:  70 5 0 0\n"
_IPF = b"  v4 frags too small: 3\n  min v4 frag size: 1200\n"
_TC = b'[{"kind":"tbf","handle":"1:","dev":"eth1","root":true,"drops":3,"packets":7}]'
_NEIGH = b"IP   MAC   Bridge\n10.0.0.1  0a:00:00:00:00:01  br-phy\n"
_COVERAGE = b"packet_in_overflow   0.0/sec     1.500/sec        0.0250/sec   total: 90\n"
_LIMITS = b"default limit=0\nzone=3,limit=10,count=7\n"
_MATCHES = (
    b'inport == "web1" && ip4 && !(ct.est && ip4.dst == {10.9.1.0/24, $as1}) || xxreg0[0..7] == 0x80',
    b'eth.src == {0a:00:01:00:00:02, 0a:00:00:00:00:01} && (arp || udp) && is_chassis_resident("cr-lrp")',
    b"reg9[2] == 1 && ip6.dst == fd00::1/64 && tcp.dst >= 1024 && ip.ttl != {0, 1} && flags.loopback",
)
_INVENTORY = (
    b'[[server]]\nname = "a"\nbridges = ["br0", "br1"]\naddress = "192.0.2.1"\n[[endpoint]]\nname = "v"\nserver = "a"\n'
    b'bridge = "br0"\nport = "t"\nmac = "0a:00:00:00:00:01"\naddresses = ["10.0.0.1"]\nvlan = 7\n[[link]]\n'
    b'kind = "patch"\nends = [{server="a",bridge="br0",port="x"},{server="a",bridge="br1",port="y"}]\n'
)
_WORDS = (b"clone(", b")", b"->", b"[0..", b"4294967296", b"0x", b"-1", b"\xc2\xb2", b"9" * 4400, b"(" * 500, b"reg15")
_PACKET = Packet(fields={"version": 4, "nw_proto": 17, "nw_dst": 1, "reg0": 5, "reg1": 0, "tp_dst": 53}, inport="web1")


def _entries(text: str) -> None:
    """A dump of entries, and all that is concluded from one."""
    entries = flowtext.parse_dump(text)
    check(entries)
    check([local_vifs(entries)])
    entries_at_top(entries)
    guard_bits.free_pair(guard_bits.used_bits(entries, 10))
    groups = ofctl.parse_groups(_GROUPS.decode())
    for read in (
        lambda: layout.discover(entries, (1,)),
        lambda: plain_layout.discover(entries, groups, plain_layout.parse_fdb(_FDB.decode()), "br0"),
        lambda: [list(outputs.learned_tables(entry.actions)) for entry in entries],
    ):
        _or_error(read)
    NamedIds().take(text.splitlines())
    for line in text.splitlines():
        flowtext.table_of(line)


def _or_error(read: Callable[[], object]) -> None:
    with contextlib.suppress(VTraceError):
        read()


def _flows(text: str) -> None:
    """A dump of datapath flows, and all that is concluded from one."""
    flows = datapath.parse_dump(text)
    check(flows)
    assert all(flow.unused_s is None or math.isfinite(flow.unused_s) for flow in flows)
    datapath.of_tos(flows, 12)
    for flow in flows:
        for read in (datapath.recirculations, datapath.outputs, datapath.ends_in_drop, datapath.translates):
            read(flow)
        datapath.without_copies(flow.actions, "0x5654")


def _trace(text: str) -> None:
    """A trace: both readers of it."""
    found = trace.parse_trace(text, "br-int")
    check(found)
    tunnel_bytes(found)
    check(look_ups(text))
    last_seen(text)
    trace.parse_trace(trace.first_pass(text))


def _programs(text: str) -> None:
    """Every other output of programs: each reader is given every text."""
    for read in (
        ofctl.parse_groups,
        ofctl.parse_table_counts,
        ofctl.parse_port_counters,
        ofctl.parse_meter_configs,
        ofctl.parse_meter_stats,
        plain_layout.parse_fdb,
        intake.parse_sockets,
        intake.parse_received,
        lambda shown: intake.parse_lost(shown, "netdev"),
        lambda shown: port_names(shown, "netdev"),
        ipf.parse_status,
        queues.parse_queues,
        neighbors,
        parse_limits,
        overflows,
        last_word,
    ):
        _or_error(lambda read=read: check(read(text)))


def _groups(text: str) -> None:
    """Groups that lead to each other."""
    groups = ofctl.parse_groups(text)
    outputs.reach_of("group:3,output:1", 0, groups, "here")


def _match(text: str) -> None:
    assert holds(text, _PACKET) in (True, False, None)


def _inventory(text: str) -> object:
    return inventory_file.parse(text, "cloud.toml")


def _file(data: bytes) -> None:
    """The file itself, whatever its bytes."""
    path = Path(f"/dev/shm/vtrace-fuzz-{id(data):x}.toml")
    path.write_bytes(data)
    try:
        _or_error(lambda: inventory_file.read(str(path)))
    finally:
        path.unlink()


_TRACES = captured(
    "trace_nat_out.txt", "trace_group.txt", "trace_flood_tunnel.txt", "trace_resumed_behind_a_provider_bridge.txt"
)
TARGETS = (
    Target("flow_text", of_text(_entries), (_BRIDGE, *lines(captured("dump_23.03.1.txt"), 12)), _WORDS, 6144),
    Target("datapath_text", of_text(_flows), lines(captured("datapath_color.txt"), 4), _WORDS, 6144),
    Target("trace_text", of_text(_trace), lines(_TRACES, 40), (*_WORDS, b" is now ", b"nw_dst="), 6144),
    Target(
        "program_text",
        of_text(_programs),
        (_TABLES, _PORTS, _METERS + _STATS, _FDB, _SS + _SHOW + _DEV, _IPF, _TC, _NEIGH, _LIMITS, _COVERAGE),
        (*_WORDS, b"...99999999999:", b"null", b"1e999"),
        6144,
    ),
    Target("group_text", of_text(_groups), (_GROUPS,), (*_WORDS, b"actions=group:3,bucket=")),
    Target(
        "logical_match",
        of_text(_match),
        _MATCHES,
        (*_WORDS, b"!" * 500, b"{", b'"', b"&&"),
        6144,
    ),
    Target(
        "inventory",
        of_text(_inventory),
        (_INVENTORY,),
        (b"[" * 400, b"{a=", b"1979-05-27", b"inf", *_WORDS),
        6144,
    ),
    Target("inventory_file", _file, (_INVENTORY,), (b"\xff\xfe", b"\0"), 1024),
)
