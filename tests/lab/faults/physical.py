"""Faults made below OVN: entries put in by hand, and wires that lose packets."""

from __future__ import annotations

from collections.abc import Callable

from faults.catalogue import ANYWHERE, REMOTE, Build, Entry, at_destination, at_source
from faults.facts import Facts
from faults.model import Do, Expect, Fault, Pair

GENEVE_PORT = 6081
TUNNEL_ADDRESSES = {"hv1": "10.250.0.1", "hv2": "10.250.0.2", "hv3": "10.250.0.3"}
COOKIES = {"no-cookie": 0, "cookie": 0xFEEDFACECAFE1234, "cookie-like-ovn": 0x1234ABCD}
COLORED = {4: "@th,312,8 & 0x0c == 0x0c", 6: "@th,312,8 & 0xc0 == 0xc0"}
"""nft: the inner DSCP is of pool 2, behind the headers of UDP, Geneve with OVN's one option, and Ethernet."""

# Stages with nothing but a default entry, so that any priority above 0 wins.
QUIET_INGRESS = ("ls_in_dhcp_options",)
QUIET_EGRESS = ("ls_out_qos_mark", "ls_out_qos", "ls_out_stateful")
OVN_PRIORITY = 100
"""Of OVN's own entries for unicast in the physical tables."""

Position = Callable[[Pair, Facts], tuple[str, int, int | None, Expect, int] | None]
"""(pair, facts) -> server, table, metadata, answer, priority of what it has to beat; None where it can't be."""


def _expect(pair: Pair, server: str, vfd: str) -> Expect:
    return Expect("dropped", server, vfd, code="foreign_flow_entry", object_type="OpenFlow entry")


def sender_table_0(pair: Pair, facts: Facts) -> tuple[str, int, int | None, Expect, int]:
    return pair.source_server, 0, None, at_source(pair, "foreign_flow_entry"), OVN_PRIORITY


def sender_ingress(pair: Pair, facts: Facts) -> tuple[str, int, int | None, Expect, int]:
    table = facts.stage_table(pair.source_server, QUIET_INGRESS)
    metadata = facts.datapath_keys[pair.source_switch]
    return pair.source_server, table, metadata, at_source(pair, "foreign_flow_entry"), 0


def sender_remote_output(pair: Pair, facts: Facts) -> tuple[str, int, int | None, Expect, int] | None:
    if not pair.remote:
        return None
    table = facts.output_table(pair.source_server, pair.destination)
    metadata = facts.datapath_keys[pair.destination_switch]
    expect = _expect(pair, pair.source_server, pair.destination_switch)
    return pair.source_server, table, metadata, expect, OVN_PRIORITY


def receiver_table_0(pair: Pair, facts: Facts) -> tuple[str, int, int | None, Expect, int] | None:
    if not pair.remote:
        return None
    return pair.destination_server, 0, None, at_destination(pair, "foreign_flow_entry"), OVN_PRIORITY


def _receiver(pair: Pair, facts: Facts, table: int, beats: int) -> tuple[str, int, int | None, Expect, int]:
    metadata = facts.datapath_keys[pair.destination_switch]
    return pair.destination_server, table, metadata, at_destination(pair, "foreign_flow_entry"), beats


def receiver_local_output(pair: Pair, facts: Facts) -> tuple[str, int, int | None, Expect, int]:
    table = facts.output_table(pair.destination_server, pair.destination)
    return _receiver(pair, facts, table, OVN_PRIORITY)


def receiver_egress(pair: Pair, facts: Facts) -> tuple[str, int, int | None, Expect, int]:
    return _receiver(pair, facts, facts.stage_table(pair.destination_server, QUIET_EGRESS), 0)


def receiver_64(pair: Pair, facts: Facts) -> tuple[str, int, int | None, Expect, int]:
    # OVN's own entries there are for packets that go back where they came from.
    return _receiver(pair, facts, 64, 0)


def receiver_65(pair: Pair, facts: Facts) -> tuple[str, int, int | None, Expect, int]:
    return _receiver(pair, facts, 65, OVN_PRIORITY)


POSITIONS: dict[str, tuple[Position, tuple[str, ...]]] = {
    "sender-t0": (sender_table_0, ANYWHERE),
    "sender-ingress": (sender_ingress, ANYWHERE),
    "sender-remote-output": (sender_remote_output, REMOTE),
    "receiver-t0": (receiver_table_0, REMOTE),
    "receiver-local-output": (receiver_local_output, ANYWHERE),
    "receiver-egress": (receiver_egress, ANYWHERE),
    "receiver-t64": (receiver_64, ANYWHERE),
    "receiver-t65": (receiver_65, ANYWHERE),
}
PRIORITIES = ("low", "200", "40000", "65535")


def foreign(pair: Pair, facts: Facts, position: str, priority: str, cookie: str) -> Fault:
    """An entry by hand that drops; its near-miss is the same entry where it loses, or for another address."""
    found = POSITIONS[position][0](pair, facts)
    assert found is not None, (position, pair)
    server, table, metadata, expect, beats = found
    number = beats + 1 if priority == "low" else int(priority)
    family, word = ("ip", "nw") if pair.ip == 4 else ("ipv6", "ipv6")
    scope = [f"table={table}", *([f"metadata=0x{metadata:x}"] if metadata is not None else [])]

    def entry(rank: int, destination: str) -> str:
        return ",".join([*scope, f"priority={rank}", family, f"{word}_src={pair.src}", f"{word}_dst={destination}"])

    def add(text: str) -> Do:
        return Do(server, ("ovs-ofctl", "add-flow", "br-int", f"cookie=0x{COOKIES[cookie]:x},{text},actions=drop"))

    def delete(text: str) -> Do:
        return Do(server, ("ovs-ofctl", "--strict", "del-flows", "br-int", text))

    hit = entry(number, pair.dst)
    miss = entry(beats // 2, pair.dst) if beats else entry(number, "10.1.9.9" if pair.ip == 4 else "fd00:1:9::9")
    words = (f"table={table},", f"priority={number}", *([f"{COOKIES[cookie]:x}"] if COOKIES[cookie] else []))
    return Fault(
        name=f"foreign_{position}_{priority}_{cookie}",
        inject=(add(hit),),
        heal=(delete(hit),),
        near=(add(miss),),
        near_heal=(delete(miss),),
        expect=Expect(
            "dropped",
            expect.server,
            expect.vfd,
            code="foreign_flow_entry",
            object_type="OpenFlow entry",
            object_words=words,
        ),
    )


def _foreign(position: str, priority: str, cookie: str) -> Build:
    return lambda pair, facts: foreign(pair, facts, position, priority, cookie)


FOREIGN: tuple[Entry, ...] = tuple(
    Entry(f"foreign_{position}_{priority}_{cookie}", _foreign(position, priority, cookie), POSITIONS[position][1])
    for position in POSITIONS
    for priority in PRIORITIES
    for cookie in COOKIES
)
FOREIGN_CORE = tuple(
    f"foreign_{position}_{priority}_{cookie}"
    for position, priority, cookie in (
        ("sender-t0", "low", "cookie"),
        ("sender-t0", "65535", "no-cookie"),
        ("sender-ingress", "40000", "no-cookie"),
        ("sender-remote-output", "200", "cookie-like-ovn"),
        ("sender-remote-output", "65535", "no-cookie"),
        ("receiver-t0", "65535", "cookie"),
        ("receiver-t0", "200", "no-cookie"),
        ("receiver-local-output", "low", "no-cookie"),
        ("receiver-egress", "200", "cookie"),
        ("receiver-t64", "40000", "no-cookie"),
        ("receiver-t65", "200", "no-cookie"),
        ("receiver-t65", "65535", "cookie"),
    )
)


def wire(pair: Pair, name: str, match: str) -> tuple[Do, Do]:
    """An nftables rule that drops tunnel packets on the wire between two servers, and its removal."""
    rule = f"ip saddr {TUNNEL_ADDRESSES[pair.source_server]} udp dport {GENEVE_PORT} {match} counter drop"
    table = f"table inet {name} {{ chain c {{ type filter hook forward priority 0; {rule}; }}; }}"
    return Do(pair.wire, ("nft", table)), Do(pair.wire, ("nft", "delete", "table", "inet", name))


def _lost(pair: Pair, **more: object) -> Expect:
    return Expect(
        "lost_between",
        pair.source_server,
        pair.destination_switch,
        code="physical_loss",
        next_server=pair.destination_server,
        object_type="Tunnel",
        **more,  # type: ignore[arg-type]
    )


def physical_loss(pair: Pair, facts: Facts) -> Fault:
    """All that the wire carries from the sender's server; the near-miss: what has another tunnel port."""
    inject, heal = wire(pair, "injected", "")
    near, near_heal = wire(pair, "near", "udp sport 9")
    return Fault("physical_loss", (inject,), (heal,), _lost(pair), (near,), (near_heal,))


def partial_loss(pair: Pair, facts: Facts) -> Fault:
    """One packet in three; the near-miss: packets of a size that nobody sends."""
    inject, heal = wire(pair, "injected", "numgen random mod 3 0")
    near, near_heal = wire(pair, "near", "meta length > 1480")
    return Fault("partial_loss", (inject,), (heal,), _lost(pair), (near,), (near_heal,), effect="some lost")


def _burst(name: str, numbers: str, expect: dict[str, object]) -> Build:
    def build(pair: Pair, facts: Facts) -> Fault:
        inject, heal = wire(pair, "injected", f"{COLORED[pair.ip]} numgen inc mod 100000 {numbers}")
        return Fault(name, (inject,), (heal,), _lost(pair, **expect), effect="some lost")

    return build


# Which of the colored packets the wire loses, of 100; a burst is transient if 20 or more were delivered after it.
TRANSIENT: dict[str, object] = {"loss": "no", "pattern": "transient", "exit_code": 0}
UNCLEAR: dict[str, object] = {"loss": "unknown", "pattern": "unclear", "exit_code": 3}
PHYSICAL: tuple[Entry, ...] = (
    Entry("physical_loss", physical_loss, REMOTE),
    Entry("partial_loss", partial_loss, REMOTE),
    Entry("transient_loss", _burst("transient_loss", "20-44", TRANSIENT), REMOTE, protos=("udp", "icmp"), near=False),
    Entry("unclear_loss", _burst("unclear_loss", "75-84", UNCLEAR), REMOTE, protos=("udp", "icmp"), near=False),
    Entry("two_bursts", _burst("two_bursts", "{ 20-24, 60-64 }", {}), REMOTE, protos=("udp", "icmp"), near=False),
)
BURST_PACKETS = 100
