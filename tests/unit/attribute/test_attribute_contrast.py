"""What tells lost packets from delivered ones; and that nothing is said where nothing does."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import losing
import pytest
from builders import PROPERTY, Recorder, case
from hypothesis import given
from hypothesis import strategies as st
from losing import fields, lose, packet, said
from msgspec.structs import replace

from vtrace.attribute.verdicts import attribute
from vtrace.model.answer import CONTRAST_FIELDS
from vtrace.model.record import LogRecord

SEEDS = 600


def many(count: int = 100, connections: int = 20) -> list[losing.Traits]:
    return [packet(n, n % connections) for n in range(count)]


def valued(packets: list[losing.Traits], **values: object) -> list[losing.Traits]:
    """Each packet with values made by functions of its number and connection."""
    return [
        replace(p, values={**p.values, **{k: f(n, p.unit[2]) for k, f in values.items()}})  # type: ignore[operator,index]
        for n, p in enumerate(packets)
    ]


def test_pings_that_are_too_long() -> None:
    """A user's question that nobody answered: 69-byte pings are all lost, 68-byte pings arrive."""
    pings = [packet(n, proto=1, size=97 if n * 7 % 5 < 2 else 96) for n in range(100)]
    (found,) = said(lose(pings, lambda p: p.values["size"] == 97))
    assert found.field == "size"
    assert (found.lost, found.delivered) == ("97 bytes or longer", "96 bytes or shorter")
    assert found.text == "all 40 lost packets are 97 bytes or longer, all 60 delivered ones 96 bytes or shorter"
    assert (found.from_, found.to, found.direction) == ("web1", "web2", "forward")


def test_short_ones_that_are_lost() -> None:
    pings = [packet(n, proto=1, size=60 + n * 37 % 100) for n in range(100)]
    (found,) = said(lose(pings, lambda p: p.values["size"] < 100))  # type: ignore[operator]
    assert (found.field, found.lost, found.delivered) == ("size", "99 bytes or shorter", "100 bytes or longer")


def test_what_goes_against_it_is_counted() -> None:
    pings = [packet(n, proto=1, size=1400 if n % 2 else 92) for n in range(100)]
    lost = [bool(n % 2) != (n in (10, 31)) for n in range(100)]
    (found,) = said(lose(pings, lost))
    assert found.text == "49 of 50 lost packets are 1400 bytes or longer, 49 of 50 delivered ones 92 bytes or shorter"


def test_too_much_goes_against_it() -> None:
    pings = [packet(n, proto=1, size=1400 if n % 2 else 92) for n in range(100)]
    assert said(lose(pings, [bool(n % 2) != (n in (11, 31, 51)) for n in range(100)])) == ()


def test_two_connections_of_two_sizes() -> None:
    """It may be the size, or the connection: both is said."""
    datagrams = [packet(n, n * 7 % 5 % 2, size=(92, 1400)[n * 7 % 5 % 2]) for n in range(100)]
    (found,) = said(lose(datagrams, lambda p: p.values["size"] == 1400))
    assert found.field == "size"
    assert "something else of the connection" in found.text
    assert said(lose(datagrams, lambda p: p.values["size"] == 1400, "acl_drop")) == (), "an ACL sees no length"


def test_many_connections_of_two_sizes() -> None:
    datagrams = valued(many(), size=lambda _, c: 1400 if c % 3 else 92)
    (found,) = said(lose(datagrams, lambda p: p.values["size"] == 1400))
    assert found.field == "size"
    assert "connection" not in found.text


def test_segments_that_are_sent_again() -> None:
    """TCP sends more at once after a loss: size tells nothing then, except within connections."""
    segments = [packet(n, n % 32, proto=6, size=1400 if n % 32 < 11 else 116) for n in range(100)]
    assert fields(lose(segments, lambda p: p.values["size"] == 1400)) == ["source_port"]
    segments = [packet(n, n % 3, proto=6, size=1400 if n * 7 % 5 < 2 else 52) for n in range(100)]
    assert fields(lose(segments, lambda p: p.values["size"] == 1400)) == ["size"]


def test_one_backend() -> None:
    sent = valued(many(), backend=lambda _, c: f"10.0.2.{c * 7 % 3}")
    sent = [replace(p, servers=frozenset({"hv1", "hv2", "hv3"})) for p in sent]
    (found,) = said(lose(sent, lambda p: p.values["backend"] == "10.0.2.1", "acl_drop"))
    assert found.field == "backend"
    assert (found.lost, found.delivered) == ("10.0.2.1 (db1)", "10.0.2.0, 10.0.2.2")
    assert found.text == (
        "all 35 lost packets went to the backend 10.0.2.1 (db1), all 65 delivered ones to 10.0.2.0, 10.0.2.2"
    )


def test_backends_of_one_server() -> None:
    """Two backends are lost, and one server says it simpler."""
    sent = valued(many(connections=32), backend=lambda _, c: f"10.0.2.{c * 7 % 4}")
    sent = [replace(p, servers=frozenset({"hv1", f"hv{2 + (str(p.values['backend'])[-1] in '12')}"})) for p in sent]
    found = said(lose(sent, lambda p: "hv3" in p.servers))
    assert [one.field for one in found] == ["server", "backend"]
    assert (found[0].lost, found[0].delivered) == ("hv3", "hv2")


def test_one_next_hop() -> None:
    sent = valued(many(), ecmp_member=lambda _, c: ("0a:00:00:00:00:02", "0a:00:00:00:00:03")[c * 7 % 5 % 2])
    (found,) = said(lose(sent, lambda p: p.values["ecmp_member"] == "0a:00:00:00:00:03", "unknown"))
    assert found.field == "ecmp_member"
    assert (found.lost, found.delivered) == ("0a:00:00:00:00:03 (db1)", "0a:00:00:00:00:02 (web2)")


def test_a_range_of_source_ports() -> None:
    (found,) = said(lose(many(connections=32), lambda p: p.unit[2] < 8, "acl_drop"))  # type: ignore[index]
    assert (found.field, found.lost, found.delivered) == ("source_port", "36000 to 36007", "36008 to 36031")
    (found,) = said(lose(many(connections=32), lambda p: not 6 <= p.unit[2] < 14, "acl_drop"))  # type: ignore[index]
    assert (found.lost, found.delivered) == ("below 36006 or above 36013", "36006 to 36013")


def test_ports_of_attempts_to_connect() -> None:
    """A client whose attempts are lost tries again from the next port: its ports are no cause."""
    flags = ("SYN", "none of SYN, FIN, RST")
    sent = [packet(n, n % 32 + (32 * n if n % 32 < 8 else 0), proto=6, tcp_flags=flags[n % 32 >= 8]) for n in range(99)]
    assert fields(lose(sent, lambda p: p.values["tcp_flags"] == "SYN", "unknown")) == []
    some = [replace(p, values={**p.values, "tcp_flags": flags[1]}) for p in sent]
    ports = lose(some, [p.values["tcp_flags"] == "SYN" for p in sent], "unknown")
    assert fields([replace(p, values={**p.values, "source_port": 36000 + n % 32}) for n, p in enumerate(ports)]) == [
        "source_port"
    ]


def test_some_source_port_always_separates() -> None:
    """Of four connections one is lost: that this one has a port of its own says nothing."""
    assert said(lose(many(connections=4), lambda p: p.unit[2] == 1, "unknown")) == ()  # type: ignore[index]


def test_a_conntrack_state() -> None:
    """Lost in a state that they did not get by being lost; a connection that loses everything stays new."""
    sent = valued(many(), conntrack_state=lambda _, c: "est" if c * 7 % 5 < 2 else "new")
    (found,) = said(lose(sent, lambda p: p.values["conntrack_state"] == "est", "ct_invalid"))
    assert (found.field, found.lost, found.delivered) == ("conntrack_state", "est", "new")
    assert "may come of the loss" not in found.text
    (found,) = said(lose(sent, lambda p: p.values["conntrack_state"] == "new", "unknown"))
    assert (found.field, found.lost) == ("conntrack_state", "new")
    assert "may come of the loss" in found.text
    by_state = [replace(p, by_state=p.lost) for p in lose(sent, lambda p: p.values["conntrack_state"] == "new")]
    assert "may come of the loss" not in said(by_state)[0].text


def test_an_acl_that_names_no_state() -> None:
    """Connections that stood when it came are est, and it is no reason; but it lets answers pass."""
    sent = valued(
        many(connections=32),
        conntrack_state=lambda _, c: "est" if c < 12 else "new",
        destination_port=lambda _, c: 80 if c < 12 else 443,
    )
    found = fields(lose(sent, lambda p: p.values["destination_port"] == 80, "acl_drop"))
    assert found == ["destination_port", "source_port"]
    sent = valued(many(), conntrack_state=lambda _, c: "est,rpl" if c * 7 % 5 < 2 else "new")
    (one,) = said(lose(sent, lambda p: p.values["conntrack_state"] == "new", "acl_drop"))
    assert (one.field, one.lost, one.delivered) == ("conntrack_state", "new", "est,rpl")
    assert "may come of the loss" not in one.text


def test_ports_of_connections_of_two_sizes() -> None:
    """A link looks at the length, an entry that somebody added does not; of what is not known both are told."""
    sent = valued(many(connections=32), size=lambda _, c: 1400 if c < 12 else 92)
    for code, expected in (
        ("physical_loss", ["size"]),
        ("foreign_flow_entry", ["source_port"]),
        ("unknown", ["size", "source_port"]),
    ):
        assert fields(lose(sent, lambda p: p.values["size"] == 1400, code)) == expected, code


def test_a_state_that_is_not_known_of_all() -> None:
    sent = valued(many(), conntrack_state=lambda _, c: "est" if c * 7 % 5 < 2 else "new")
    found = lose(sent, lambda p: p.values["conntrack_state"] == "est", "unknown")
    found = [
        replace(p, values={k: v for k, v in p.values.items() if k != "conntrack_state"}) if n in (0, 3, 5) else p
        for n, p in enumerate(found)
    ]
    (one,) = said(found)
    assert one.text.startswith("all 37 lost packets of which it is known are of connections in the state est")


def test_one_server_of_several_destinations() -> None:
    sent = [
        replace(packet(n, n % 16, pair=2 * (n % 2)), servers=frozenset({"hv1", ("hv2", "hv3")[n % 2]}))
        for n in range(200)
    ]
    sent.sort(key=lambda p: (p.pair, p.order))
    found = lose(sent, lambda p: p.pair == 2)
    (one,) = said(found)
    assert (one.field, one.lost, one.delivered) == ("server", "hv3", "hv2")
    assert (one.from_, one.to, one.direction) == (None, None, None)
    assert said(lose(sent, lambda p: p.pair == 2, "acl_drop")) == (), "one endpoint of the server: it may be that one"


def test_two_causes_at_once() -> None:
    """A wire loses one packet in five, and an ACL all that go to one backend."""
    sent = valued(many(connections=32), backend=lambda _, c: f"10.0.2.{c * 7 % 3}")
    sent = [replace(p, servers=frozenset({"hv1", "hv2"})) for p in sent]
    found = lose(sent, lambda p: p.values["backend"] == "10.0.2.1", "acl_drop")
    draw = random.Random(5)
    found = [p if p.lost or draw.random() > 0.2 else lose([p], [True], "physical_loss")[0] for p in found]
    (one,) = said(found)
    assert one.field == "backend"
    assert one.text.startswith("all 34 packets lost to acl_drop on hv2 went to the backend 10.0.2.1 (db1), all 5")


def test_a_direction() -> None:
    sent = [packet(n, pair=0) for n in range(50)] + [packet(n, pair=1) for n in range(40)]
    (found,) = said(lose(sent, lambda p: p.pair == 1))
    assert (found.field, found.lost, found.delivered) == ("direction", "reply", "forward")
    assert found.text == "all 40 replies are lost, all 50 packets forward arrive"
    assert (found.from_, found.to, found.direction) == ("web1", "web2", None)
    half = lose(sent, [p.pair == 1 and n % 2 == 0 for n, p in enumerate(sent)])
    assert said(half) == ()


@pytest.mark.parametrize("lost", [True, False])
def test_all_or_nothing(lost: bool) -> None:
    sent = valued(many(), size=lambda n, _: 60 + n, backend=lambda _, c: f"10.0.2.{c % 3}")
    assert said(lose(sent, [lost] * len(sent))) == ()


def test_time_tells_as_much() -> None:
    """First short ones arrive, then long ones are lost: it may have been the size, or that something broke."""
    sent = [packet(n, proto=1, size=92 if n < 50 else 1400) for n in range(100)]
    assert said(lose(sent, lambda p: p.values["size"] == 1400)) == ()
    lost = [n >= 48 and n % 8 != 0 for n in range(100)]
    assert said(lose(sent, lost)) == ()


LOSSES = (losing.at_random, losing.at_random, losing.for_a_while, losing.in_bursts, losing.on_and_off)


def test_losses_by_chance_have_no_contrast() -> None:
    """Of losses that no property of a packet decides none is explained by one."""
    wrong = []
    for seed in range(SEEDS):
        draw = random.Random(seed)
        sent = losing.drawn_traffic(draw)
        loss, code = LOSSES[seed % len(LOSSES)], draw.choice(["physical_loss", "unknown", "acl_drop"])
        lost = lose(sent, loss(draw, sent), code)
        # Which of two causes is named is a matter of chance, too.
        lost = [replace(p, code="acl_drop", cause="acl") if p.lost and draw.random() < 0.3 else p for p in lost]
        wrong += [(seed, one.text) for one in said(lost)]
    assert wrong == []


def test_losses_of_whole_connections_by_chance() -> None:
    """Which connections are lost is drawn: what is said all the same says that it may be the connection."""
    wrong: Counter[str] = Counter()
    for seed in range(SEEDS // 2):
        draw = random.Random(seed)
        sent = losing.drawn_traffic(draw)
        found = said(lose(sent, losing.by_connection(draw, sent), "unknown"))
        wrong.update(one.field for one in found if not one.text.endswith(("what matters", "come of the loss")))
    assert wrong == Counter()


# --- from records -----------------------------------------------------------------------------------------


def records() -> tuple[LogRecord, ...]:
    """50 echo requests of two sizes from web1 to web2; the larger ones do not come in on the other server."""
    recorder = Recorder()
    large = set()
    for key in range(50):
        if key * 7 % 5 < 2:
            large.add(key)
            recorder.first(key)
            recorder.sent(key)
        else:
            recorder.switched(key)
    return tuple(replace(r, proto=1, sport=8, length_bytes=1428 if r.key in large else 92) for r in recorder.records)


RECORDS = records()


@PROPERTY
@given(st.permutations(RECORDS), st.lists(st.sampled_from(RECORDS)))
def test_order_and_repetition_of_records_change_nothing(order: list[LogRecord], again: list[LogRecord]) -> None:
    found = attribute(case([*order, *again])).contrast
    assert [one.text for one in found] == [
        "all 20 lost packets are 1428 bytes or longer, all 30 delivered ones 92 bytes or shorter"
    ]


def test_the_document_lists_the_fields() -> None:
    text = (Path(__file__).parents[3] / "docs" / "answer.md").read_text()
    section = text.partition("### Contrast")[2].partition("\n### ")[0]
    table = section.partition("| `field` | What differs |")[2].partition("\n\n")[0]
    listed = [
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1] if "|" in row else "")
    ]
    assert sorted(listed) == sorted(CONTRAST_FIELDS)
