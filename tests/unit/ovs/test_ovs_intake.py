"""Real texts: packet sockets (iproute2 6.1), /proc/net/dev, and what the lookups of a datapath lost (OVS 3.1)."""

from __future__ import annotations

import pytest

from vtrace.ovs.intake import parse_lost, parse_packet_ins, parse_received, parse_sockets

SOCKETS = """\
Netid State  Recv-Q Send-Q Local Address:Port      Peer Address:PortProcess
p_raw UNCONN 0      0                  *:red-web3              *     skmem:(r0,rb212992,t0,tb212992,f0,w0,o176,bl0,d0)
p_raw UNCONN 2304   0                  *:to-hv1                *     skmem:(r0,rb212992,t0,tb212992,f0,w0,o176,bl0,d210)
p_raw UNCONN 0      0                  *:to-hv1                *     skmem:(r0,rb212992,t0,tb212992,f0,w0,o0,bl0,d2)
p_dgr UNCONN 0      0                [0]:*                     *     skmem:(r0,rb212992,t0,tb212992,f0,w0,o0,bl0,d9)
"""
DEVICES = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
to-hv1: 10501386   10513    0    0    0     0          0         0 10207134   10301    0    0    0     0       0          0
"""  # noqa: E501 (as it is printed)
SHOW = """\
netdev@ovs-netdev:
  lookups: hit:19 missed:41 lost:3
  flows: 36
system@ovs-system:
  lookups: hit:1 missed:2 lost:700
"""


def test_what_did_not_fit_into_sockets() -> None:
    found = parse_sockets(SOCKETS)
    assert (found["red-web3"], found["to-hv1"]) == (0, 212)


def test_what_devices_received() -> None:
    assert parse_received(DEVICES) == {"lo": 0, "to-hv1": 10513}


def test_what_lookups_lost_of_each_kind_of_datapath() -> None:
    assert (parse_lost(SHOW, "netdev"), parse_lost(SHOW, "system")) == (3, 700)


COVERAGE = """\
Event coverage, avg rate over last: 5 seconds, last minute, last hour,  hash=7ff4a15d:
bridge_reconfigure         0.0/sec     0.000/sec        0.0022/sec   total: 8
packet_in_overflow         0.0/sec     0.000/sec        0.0000/sec   total: 7
rconn_discarded            0.0/sec     0.000/sec        0.0000/sec   total: 900
rconn_overflow             0.0/sec     0.050/sec        0.0264/sec   total: 95
rconn_sent                13.0/sec    15.817/sec       18.7408/sec   total: 67467
114 events never hit
"""


@pytest.mark.parametrize(("text", "dropped"), [(COVERAGE, 102), ("", 0), ("67 events never hit\n", 0)])
def test_packet_ins_that_found_a_queue_full(text: str, dropped: int) -> None:
    """As `coverage/show` of Open vSwitch 3.1 prints it; numbers are made up."""
    assert parse_packet_ins(text) == dropped
