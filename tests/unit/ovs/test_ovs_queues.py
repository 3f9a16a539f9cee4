"""The JSON of tc (iproute2 6.1) about a device with a shaped queue, one with a tree of queues, and one without."""

from __future__ import annotations

from vtrace.ovs.queues import DeviceQueue, parse_queues

TC = """[{"kind":"noqueue","handle":"0:","dev":"lo","root":true,"refcnt":2,"options":{},"bytes":0,"drops":0},
{"kind":"tbf","handle":"8001:","dev":"red-web3","root":true,"refcnt":3,"options":{"rate":6250,"burst":1600,
"lat":224000},"bytes":9420,"packets":10,"drops":51,"overlimits":73,"requeues":0,"backlog":0,"qlen":0},
{"kind":"htb","handle":"1:","dev":"eth0","root":true,"options":{},"bytes":1,"packets":1,"drops":7},
{"kind":"fq_codel","handle":"2:","dev":"eth0","parent":"1:1","options":{},"bytes":1,"packets":1,"drops":5},
{"kind":"ingress","handle":"ffff:","dev":"eth1","parent":"ffff:fff1","options":{},"drops":3}]"""


def test_the_root_of_each_device() -> None:
    assert parse_queues(TC) == {
        "lo": DeviceQueue(kind="noqueue", dropped=0),
        "red-web3": DeviceQueue(kind="tbf", dropped=51, packets=10),
        "eth0": DeviceQueue(kind="htb", dropped=7, packets=1),
    }


def test_what_is_no_such_answer_has_no_queues() -> None:
    assert parse_queues("") == {}
    assert parse_queues('{"kind": 3}') == {}
