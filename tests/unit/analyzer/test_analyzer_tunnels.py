"""What is said of a tunnel's two ends, held against the southbound rows."""

from __future__ import annotations

import pytest
from builders import HV1, HV2, INVENTORY, LAYOUT, tunnel
from msgspec.structs import replace

from vtrace.analyzer.tunnels import check_tunnels
from vtrace.attribute.case import TunnelCheck
from vtrace.collect.link import Survey
from vtrace.model.inventory import Inventory
from vtrace.model.openflow import TunnelPort

CHASSIS = tuple(replace(c, encap_uuid=f"encap-{c.server}") for c in INVENTORY.chassis)
CLOUD = replace(INVENTORY, chassis=CHASSIS)


def check(
    *there: TunnelPort, back: tuple[TunnelPort, ...] = (tunnel(HV1, 8),), cloud: Inventory = CLOUD
) -> TunnelCheck:
    """Of the tunnel from hv1 to hv2."""
    surveys = {
        name: Survey(chassis=name, layout=LAYOUT, vifs=(), ports=(), tunnels=found)
        for name, found in ((HV1, there), (HV2, back))
    }
    return next(c for c in check_tunnels(cloud, surveys) if c.sender == HV1)


def changed(**options: str) -> TunnelPort:
    return tunnel(HV2, 7, options=options)


def test_as_it_should_be() -> None:
    found = check(changed(key="flow", csum="true", dst_port="6081", local_ip="192.0.2.1"))
    assert (found.mismatch, found.tunnel, found.tunnel_back, found.remote_ip) == (
        "",
        f"ovn-{HV2}",
        f"ovn-{HV1}",
        "192.0.2.2",
    )
    assert found.encap == ""


@pytest.mark.parametrize(
    ("end", "says"),
    [
        (changed(key="5"), "hv1 uses the tunnel key 5"),
        (changed(dst_port="6099"), "hv1 uses the UDP port 6099, hv2 takes 6081"),
        (changed(local_ip="192.0.2.77"), "hv1 sends from 192.0.2.77, and is at 192.0.2.1"),
        (tunnel(HV2, 7, remote_ip="192.0.2.99"), "hv1 sends to 192.0.2.99, hv2 is at 192.0.2.2"),
        (tunnel(HV2, 7, "vxlan"), "hv1 uses vxlan, hv2 takes geneve"),
    ],
    ids=["key", "UDP port", "local address", "remote address", "type"],
)
def test_the_senders_end(end: TunnelPort, says: str) -> None:
    found = check(end)
    assert says in found.mismatch
    assert found.encap == "encap-hv2"


def test_the_receivers_end() -> None:
    found = check(tunnel(HV2, 7), back=())
    assert found.mismatch == "hv2 has no tunnel port towards hv1"
    assert (found.encap, found.tunnel_back) == ("encap-hv1", "")


def test_servers_without_a_common_type_are_said_to_have_none() -> None:
    cloud = replace(CLOUD, chassis=tuple(replace(c, encap_types=("vxlan",)) if c.name == HV2 else c for c in CHASSIS))
    assert "no tunnel port towards hv2 (hv1 takes geneve, hv2 vxlan)" in check(cloud=cloud).mismatch


def test_a_udp_port_of_its_own_that_the_row_names_is_right() -> None:
    cloud = replace(CLOUD, chassis=tuple(replace(c, encap_port="6099") if c.name == HV2 else c for c in CHASSIS))
    assert check(changed(dst_port="6099"), cloud=cloud).mismatch == ""
    assert "hv1 uses the UDP port 6081, hv2 takes 6099" in check(changed(), cloud=cloud).mismatch
