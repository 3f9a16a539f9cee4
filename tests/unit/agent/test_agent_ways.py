"""Real texts of Open vSwitch 3.1 (userspace): the datapath's ports, tunnel neighbors, a tunnel's headers."""

from __future__ import annotations

from vtrace.agent import ways
from vtrace.model.openflow import Trace

SHOW = """netdev@ovs-netdev:
  lookups: hit:5 missed:51 lost:0
  flows: 6
  port 0: ovs-netdev (tap)
  port 6: to-hv2
    RX packets:18 errors:0 dropped:0 overruns:0 frame:0
    RX bytes:9846 (9.6 KiB)  TX bytes:9678 (9.5 KiB)
  port 10: genev_sys_6081 (geneve: packet_type=ptap)
system@ovs-system:
  port 6: eth6
"""
NEIGHBORS = """IP                                            MAC                 Bridge
==========================================================================
10.250.1.2                                    02:76:77:00:01:02   br-phy
fd00::1                                       02:76:77:00:04:01   br-phy
"""
PUSHED = (
    "tnl_push(tnl_port(10),header(size=58,type=5,eth(dst=02:76:77:00:01:01,src=02:76:70:00:00:01,dl_type=0x0800),"
    "ipv4(src=10.250.0.1,dst=10.250.0.2,proto=17,tos=0,ttl=64,frag=0x4000),udp(src=0,dst=6081,csum=0xffff),"
    "geneve(crit,vni=0x3,options({class=0x102,type=0x80,len=4,0x30001}))),out_port(9)),6"
)


def test_ports_of_the_datapath_asked_for() -> None:
    assert ways.port_names(SHOW, "netdev") == {"0": "ovs-netdev", "6": "to-hv2", "10": "genev_sys_6081"}
    assert ways.port_names(SHOW, "system") == {"6": "eth6"}


def test_neighbors_of_tunnels() -> None:
    assert ways.neighbors(NEIGHBORS) == {
        "10.250.1.2": ("02:76:77:00:01:02", "br-phy"),
        "fd00::1": ("02:76:77:00:04:01", "br-phy"),
    }


def test_what_a_tunnel_adds() -> None:
    # Outer IPv4 20, UDP 8, Geneve 8 and an option of 8, inner Ethernet 14.
    assert ways.tunnel_bytes(Trace(steps=(), datapath_actions=("ct(zone=1),recirc(2)", PUSHED))) == 58
    assert ways.tunnel_bytes(Trace(steps=(), datapath_actions=("set(eth(src=0a:00:00:00:00:01)),4",))) == 0
