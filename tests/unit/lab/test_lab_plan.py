"""The address plan, and the state a lab is known by."""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import pytest

from vtrace.errors import CannotWorkError, UsageError
from vtrace.lab import plan, state, status, topology
from vtrace.lab.state import LabState


@pytest.fixture
def lab() -> LabState:
    declared, name = topology.read(None)
    return plan.make_state("demo", declared, name, "2026-01-01T00:00:00Z")


def test_there_is_a_wire_between_each_pair_of_servers(lab: LabState) -> None:
    pairs = {frozenset(pair) for pair in itertools.combinations([server.name for server in lab.servers], 2)}
    assert {frozenset(wire.ends) for wire in lab.wires} == pairs
    assert lab.wire_between("hv2", "hv1").name == "wire-hv1-hv2"
    with pytest.raises(UsageError, match="wire-hv1-hv2"):
        lab.wire_between("hv1", "hv1")


def test_no_two_things_of_the_underlay_share_an_address_or_mac(lab: LabState) -> None:
    addresses = [s.tunnel_address for s in lab.servers] + [s.mgmt_address for s in lab.servers]
    addresses += [address for wire in lab.wires for address in wire.addresses] + [plan.CENTRAL_MGMT_ADDRESS]
    macs = [server.tunnel_mac for server in lab.servers] + [mac for wire in lab.wires for mac in wire.macs]
    macs += [vm.mac for vm in lab.vms]
    assert len(set(addresses)) == len(addresses)
    assert len(set(macs)) == len(macs)


def test_node_names_are_unique_and_a_vm_is_its_port(lab: LabState) -> None:
    names = [node.name for node in lab.nodes]
    assert len(set(names)) == len(names) == 1 + len(lab.servers) + len(lab.wires) + len(lab.vms)
    assert {vm.name for vm in lab.vms} <= set(names)
    assert not any(name.startswith("vt-") for name in names)


def test_the_status_document_has_exactly_the_keys_of_the_design(lab: LabState) -> None:
    document = status.document(lab)
    assert set(document) == {"nodes", "vms"}
    nodes, vms = document["nodes"], document["vms"]
    assert isinstance(nodes, list)
    assert isinstance(vms, list)
    assert all(set(node) == {"name", "role", "region", "addresses", "connects"} for node in nodes)
    assert all(set(vm) == {"name", "server", "switch", "vpc", "addresses"} for vm in vms)
    by_name = {node["name"]: node for node in nodes}
    assert by_name["wire-hv1-hv2"]["connects"] == ["hv1", "hv2"]
    assert by_name["red-web3"]["connects"] == ["hv2"]


def test_the_state_survives_its_file(lab: LabState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VTRACE_LAB_DIR", str(tmp_path))
    (tmp_path / "demo").mkdir()
    state.write_state(lab)
    assert state.read_state("demo") == lab
    assert state.load("demo") is None, "a lab that is being built is not up"
    state.write_state(msgspec.structs.replace(lab, phase="up"))
    assert state.load("demo") is None, "its namespaces are gone"
    (tmp_path / "demo" / "state.json").write_text("{")
    with pytest.raises(CannotWorkError, match=r"state\.json"):
        state.read_state("demo")


def test_the_name_of_the_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VTRACE_LAB", raising=False)
    assert state.lab_name(None) == "lab"
    monkeypatch.setenv("VTRACE_LAB", "other")
    assert state.lab_name(None) == "other"
    assert state.lab_name("mine") == "mine"
    for bad in ("../x", "a b", "A", "x.y", "x" * 25):
        with pytest.raises(UsageError, match="can't be the name"):
            state.lab_name(bad)


def test_no_lab_prefix_begins_another() -> None:
    assert not state.namespace("a-b", "hv1").startswith(state.namespace_prefix("a"))


def test_an_unknown_node_is_refused_and_the_known_ones_named(lab: LabState) -> None:
    with pytest.raises(UsageError, match="central hv1"):
        lab.node("hv9")
    with pytest.raises(UsageError, match="red-web1"):
        lab.vm("hv1")
