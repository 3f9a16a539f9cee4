"""What is wrong with the ends of what joins two bridges without OVN."""

from __future__ import annotations

import pytest
from builders import LAYOUT

from vtrace.analyzer.plain_links import check_link
from vtrace.collect.link import Survey
from vtrace.model.inventory import Chassis, Inventory
from vtrace.model.openflow import BridgePort, OfPort, TunnelPort

INVENTORY = Inventory(
    datapaths=(),
    ports=(),
    chassis=(
        Chassis(name="a/br0", server="a", encap_ips=("192.0.2.1",)),
        Chassis(name="b/br0", server="b", encap_ips=("192.0.2.2",)),
    ),
    plain=True,
)


def survey(chassis: str, peer: str, kind: str, port: dict[str, object], remote_ip: str, **options: str) -> Survey:
    found = () if port.get("gone") else (BridgePort(**{"name": "p", "ofport": OfPort(3), **port}),)
    link = TunnelPort(name="p", ofport=OfPort(3), kind=kind, remote_ip=remote_ip, chassis=peer, options=options)
    return Survey(chassis=chassis, layout=LAYOUT, vifs=(), ports=found, tunnels=(link,))


def check(
    left: tuple[str, dict[str, object], str, dict[str, str]], right: tuple[str, dict[str, object], str, dict[str, str]]
) -> tuple[str, str]:
    surveys = {
        "a/br0": survey("a/br0", "b/br0", left[0], left[1], left[2], **left[3]),
        "b/br0": survey("b/br0", "a/br0", right[0], right[1], right[2], **right[3]),
    }
    found = check_link(INVENTORY, surveys, "a/br0", "b/br0")
    return found.kind, found.mismatch


A, B = "192.0.2.1", "192.0.2.2"


@pytest.mark.parametrize(
    ("left", "right", "kind", "says"),
    [
        (("wire", {}, "", {}), ("wire", {}, "", {}), "wire", ""),
        (("wire", {}, "", {}), ("wire", {"gone": True}, "", {}), "wire", "p of b is not there"),
        (("wire", {"admin_up": False}, "", {}), ("wire", {}, "", {}), "wire", "p of a is administratively down"),
        (("patch", {}, "", {}), ("patch", {"ofport": -1, "error": "no peer"}, "", {}), "patch", "no peer"),
        (("vxlan", {}, B, {"key": "5"}), ("vxlan", {}, A, {"key": "5"}), "tunnel", ""),
        (("vxlan", {}, B, {"key": "5"}), ("vxlan", {}, A, {"key": "6"}), "tunnel", "out_key 5 and p in_key 6"),
        (("vxlan", {}, B, {"key": "flow"}), ("vxlan", {}, A, {"key": "6"}), "tunnel", ""),
        (
            ("vxlan", {}, B, {"out_key": "5", "in_key": "6"}),
            ("vxlan", {}, A, {"in_key": "5", "out_key": "6"}),
            "tunnel",
            "",
        ),
        (("vxlan", {}, B, {}), ("geneve", {}, A, {}), "tunnel", "vxlan and p is geneve"),
        (("vxlan", {}, "192.0.2.9", {}), ("vxlan", {}, A, {}), "tunnel", "sends to 192.0.2.9"),
        (("vxlan", {}, "flow", {}), ("vxlan", {}, A, {}), "tunnel", ""),
        (("vxlan", {}, B, {"dst_port": "8472"}), ("vxlan", {}, A, {}), "tunnel", "UDP ports"),
    ],
)
def test_ends(left: tuple, right: tuple, kind: str, says: str) -> None:
    found, mismatch = check(left, right)
    assert found == kind
    assert says in mismatch
    assert bool(says) == bool(mismatch)


def test_no_link() -> None:
    lone = Survey(chassis="a/br0", layout=LAYOUT, vifs=(), ports=(), tunnels=())
    assert check_link(INVENTORY, {"a/br0": lone, "b/br0": lone}, "a/br0", "b/br0").mismatch == ""
