"""`vtrace diagnose --inventory FILE` as a user runs it: real interfaces, a VXLAN tunnel, ping, no OVN."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from namespaced_switches import ADDRESSES, TUNNEL, VM, Overlay, run

pytestmark = pytest.mark.ovs

THROUGH = (f"in_port={VM},actions=output:{TUNNEL}", f"in_port={TUNNEL},actions=output:{VM}")


@pytest.fixture(scope="module")
def overlay() -> Iterator[Overlay]:
    if os.geteuid() != 0 or shutil.which("ovs-vswitchd") is None or shutil.which("ethtool") is None:
        pytest.skip("needs root, Open vSwitch and ethtool")
    with tempfile.TemporaryDirectory(prefix="vtrace-plain-") as folder:
        made = Overlay(Path(folder))
        try:
            made.start()
            yield made
        finally:
            made.stop()


@contextmanager
def pinging() -> Iterator[None]:
    argv = ["ip", "netns", "exec", "plain-vm1", "ping", "-i", "0.01", "-q", ADDRESSES["right"]]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=10)


def diagnose(overlay: Overlay, *options: str) -> dict[str, Any]:
    argv = [
        os.path.join(os.path.dirname(sys.executable), "vtrace"),
        "diagnose",
        "--inventory",
        str(overlay.inventory()),
        "--from",
        "vm1",
        "--to",
        "vm2",
        "--proto",
        "icmp",
    ]
    with pinging():
        done = subprocess.run(
            [*argv, "--packets", "40", "--timeout", "15", "--json", *options],
            check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert done.stdout, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    answer["exit"] = done.returncode
    assert "error" not in answer, answer
    assert answer["cost"]["entries_left"] == 0
    return answer


def lost(answer: dict[str, Any]) -> dict[str, Any]:
    found: list[dict[str, Any]] = [v for v in answer["verdicts"] if v["kind"] in ("dropped", "lost_between")]
    assert len(found) == 1, answer
    return found[0]


def test_no_loss_by_the_tunnel(overlay: Overlay) -> None:
    for side in ("left", "right"):
        overlay.entries(side, *THROUGH)
    answer = diagnose(overlay)
    assert (answer["exit"], answer["loss"], answer["packets"]["delivered"]) == (0, "no", 40), answer
    (path,) = answer["paths"]
    assert [(hop["server"], hop["point"]) for hop in path["hops"]] == [
        ("left", "first_hop"),
        ("left", "remote_output"),
        ("right", "ingress"),
        ("right", "egress"),
    ]


def test_an_entry_that_drops_on_the_other_server(overlay: Overlay) -> None:
    overlay.entries("left", *THROUGH)
    overlay.entries("right", *THROUGH, "priority=40000,icmp,icmp_type=8,actions=drop")
    answer = diagnose(overlay)
    verdict = lost(answer)
    assert (answer["exit"], verdict["where"]["server"], verdict["where"]["vfd"]) == (1, "right", "br0")
    assert (verdict["why"]["code"], verdict["confidence"]) == ("foreign_flow_entry", 1.0)
    assert "icmp_type=8 actions=drop of the bridge br0 on right drops it" in verdict["why"]["summary"]


def test_a_table_without_an_entry_on_this_server(overlay: Overlay) -> None:
    overlay.entries(
        "left", "actions=resubmit(,7)", "table=7,arp,actions=output:2", "table=7,in_port=2,actions=output:1"
    )
    overlay.entries("right", *THROUGH)
    verdict = lost(diagnose(overlay))
    assert (verdict["where"]["server"], verdict["why"]["code"]) == ("left", "foreign_flow_entry")
    assert "table 7 of the bridge br0 on left has no entry for it" in verdict["why"]["summary"]


def test_a_loss_in_the_network_between(overlay: Overlay) -> None:
    for side in ("left", "right"):
        overlay.entries(side, *THROUGH)
    run(
        "ovs-ofctl",
        "add-flow",
        f"unix:{overlay.rundir('right')}/br-phy.mgmt",
        "priority=9,udp,tp_dst=4789,actions=drop",
    )
    try:
        verdict = lost(diagnose(overlay))
    finally:
        run("ovs-ofctl", "--strict", "del-flows", f"unix:{overlay.rundir('right')}/br-phy.mgmt",
            "priority=9,udp,tp_dst=4789")  # fmt: skip
    assert (verdict["kind"], verdict["why"]["code"]) == ("lost_between", "physical_loss")
    assert (verdict["where"]["server"], verdict["where"]["next_server"]) == ("left", "right")


def test_two_keys_of_one_tunnel(overlay: Overlay) -> None:
    for side in ("left", "right"):
        overlay.entries(side, *THROUGH)
    overlay.vsctl("right", "set", "interface", "tun", "options:key=43")
    try:
        verdict = lost(diagnose(overlay))
    finally:
        overlay.vsctl("right", "set", "interface", "tun", "options:key=42")
    assert (verdict["kind"], verdict["why"]["code"]) == ("lost_between", "tunnel_misconfigured")
    assert "tun has out_key 42 and tun in_key 43" in verdict["why"]["summary"]
