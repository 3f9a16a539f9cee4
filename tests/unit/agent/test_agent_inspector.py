"""What the agent asks the datapath before a color is taken: only where it is worth it, and never for long."""

from __future__ import annotations

import anyio
import pytest
from builders import LAYOUT

from vtrace.agent import inspector as inspector_module
from vtrace.agent.inspector import MAX_DUMPED_FLOWS, Inspector
from vtrace.ovs import unixctl
from vtrace.ovs.bridge import BridgeFacts
from vtrace.ovs.ofctl import OfCtl

DUMP = "in_port(2),ipv4(tos=0x1c/0xfc,frag=no), packets:9, bytes:1, used:3.125s, actions:3\n"
NO_USED = "in_port(2),ipv4(tos=0x1c/0xfc,frag=no), packets:9, bytes:1, actions:3\n"


def asked(
    monkeypatch: pytest.MonkeyPatch, *, kind: str = "netdev", flows: int = 1, dump: str = DUMP, slow: bool = False
) -> tuple[dict[int, float], list[str]]:
    """What it finds, and the commands that it gave."""
    commands: list[str] = []

    async def call(_: str, command: str, *words: str, timeout_s: float = 5) -> str:
        assert words == ("netdev@ovs-netdev",)
        commands.append(command)
        if slow:
            await anyio.sleep(60)
        return f"netdev@ovs-netdev:\n  flows: {flows}\n" if command == "dpctl/show" else dump

    monkeypatch.setattr(unixctl, "call", call)
    monkeypatch.setattr(unixctl, "ctl_path", lambda *_: "ctl")
    monkeypatch.setattr(inspector_module, "DUMP_TIMEOUT_S", 0.05)
    inspector = Inspector("/run", "br-int", OfCtl("br-int.mgmt"))
    facts = BridgeFacts(
        name="br-int",
        datapath_id="1",
        datapath_type=kind,
        system_id="hv1",
        hostname="hv1",
        ovs_version="3.1.0",
        encap_ips=(),
        encap_types=(),
        ports=(),
        tunnels=(),
    )
    monkeypatch.setattr(inspector, "_facts", facts)
    monkeypatch.setattr(inspector, "_layout", LAYOUT)
    return anyio.run(inspector.cached_dscps), commands


def test_it_dumps_what_a_userspace_datapath_has(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch) == ({7: 3.125}, ["dpctl/show", "dpctl/dump-flows"])


def test_it_asks_no_kernel_and_dumps_no_large_table(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, kind="") == ({}, [])
    assert asked(monkeypatch, kind="system") == ({}, [])
    assert asked(monkeypatch, flows=MAX_DUMPED_FLOWS + 1) == ({}, ["dpctl/show"])


def test_nothing_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, slow=True) == ({}, ["dpctl/show"])
    assert asked(monkeypatch, dump=NO_USED)[0] == {}
