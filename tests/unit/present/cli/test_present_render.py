"""An answer for people says whether there is a loss, where, and why."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from vtrace.model.answer import (
    Answer,
    Contrast,
    Cost,
    HopAnswer,
    ObjectRef,
    Packets,
    PathAnswer,
    TaskAnswer,
    Verdict,
    Where,
    Why,
)
from vtrace.present.cli.render import render

WHY = Why(
    code="acl_drop",
    actor="tenant",
    summary="the ACL to-lport priority 9 'ip4.src == $as[1]' of web dropped it",
    object=ObjectRef(type="ACL", uuid="1234", name="no-web"),
    fix="ovn-nbctl acl-del web to-lport 9 'ip4.src == $as[1]'",
)
WHERE = Where(server="hv2", server_ip="192.0.2.2", vfd="web", vfd_kind="vswitch", port="web2")
DROPPED = Verdict(
    kind="dropped", pattern="persistent", from_="web1", to="web2", packets=7, confidence=1.0, where=WHERE, why=WHY
)
BETWEEN = Verdict(
    kind="lost_between",
    pattern="transient",
    from_="web1",
    to="web2",
    packets=4,
    where=Where(server="hv1", vfd="web", vfd_kind="vswitch", port="ovn-hv2", next_server="hv2", next_vfd="web"),
    why=Why(code="physical_loss", actor="physical", summary="the wire lost it"),
)
DELIVERED = Verdict(kind="delivered", from_="web1", to="web2", packets=3, where=WHERE)


def text(*verdicts: Verdict, loss: str = "no", **fields: object) -> str:
    answer = Answer(task=TaskAnswer(id="t1", state="done"), loss=loss, verdicts=verdicts, **fields)
    out = StringIO()
    render(answer, Console(file=out, width=200, highlight=False, soft_wrap=True))
    return out.getvalue()


def test_a_loss_is_said_with_where_and_why() -> None:
    found = text(DROPPED, DELIVERED, loss="yes", loss_ratio=0.7, packets=Packets(colored=10, dropped=7, delivered=3))
    lines = found.splitlines()
    assert lines[0] == "Yes, packets are lost (70% of the packets)."
    assert "web1 → web2: 7 dropped by vSwitch web on server hv2 (192.0.2.2), port web2 (persistent)" in found
    assert "because: the ACL to-lport priority 9 'ip4.src == $as[1]' of web dropped it" in found
    assert "reason acl_drop, by the tenant; confidence 1" in found
    assert "object: ACL 1234 no-web" in found
    assert "ovn-nbctl acl-del web to-lport 9 'ip4.src == $as[1]'" in found
    assert "10 colored = 3 delivered + 7 dropped + 0 lost between servers" in found


def test_no_loss() -> None:
    found = text(DELIVERED, packets=Packets(colored=3, delivered=3))
    assert found.startswith("No, packets are not lost.")
    assert "3 delivered at web2, vSwitch web on server hv2" in found


def test_a_transient_loss_is_said_first_though_it_is_no_loss() -> None:
    found = text(BETWEEN, DELIVERED, packets=Packets(colored=7, lost_between=4, delivered=3))
    assert found.splitlines()[0] == "4 packets were lost for a while; it passed. No persistent loss."
    assert "4 lost between vSwitch web on server hv1 and server hv2 (transient)" in found


def test_what_tells_lost_from_delivered() -> None:
    one = Contrast(
        field="size", lost="97 …", delivered="96 …", text="all 7 [lost]", from_="web1", to="web2", direction="reply"
    )
    both = Contrast(field="direction", lost="reply", delivered="forward", text="all 9", from_="web1", to="web2")
    several = Contrast(field="server", lost="hv3", delivered="hv2", text="all 8 packets")
    found = text(DROPPED, DELIVERED, contrast=(one, both, several)).splitlines()
    at = found.index("≠ web2 → web1: lost and delivered packets differ: all 7 [lost]")
    assert found[at + 1] == "≠ web1 ↔ web2: lost and delivered packets differ: all 9"
    assert found[at + 2] == "≠ lost and delivered packets differ: all 8 packets"
    assert at > next(number for number, line in enumerate(found) if "3 delivered at web2" in line)


@pytest.mark.parametrize(("colored", "words"), [(0, "no packet of this traffic was seen"), (5, "not enough")])
def test_no_verdict(colored: int, words: str) -> None:
    found = text(loss="unknown", packets=Packets(colored=colored, evidence_missing=colored))
    assert found.startswith("No verdict: ")
    assert words in found.splitlines()[0]


def test_a_reply_is_shown_the_way_it_travels() -> None:
    verdict = Verdict(kind="delivered", direction="reply", from_="web1", to="web2", packets=1, where=WHERE)
    assert "web2 → web1: 1 delivered" in text(verdict)


@pytest.mark.parametrize("kind", ["no_traffic", "left_domain", "evidence_missing"])
def test_other_kinds_name_their_place(kind: str) -> None:
    found = text(Verdict(kind=kind, from_="web1", to="web2", packets=2, where=WHERE), loss="unknown")
    assert "vSwitch web on server hv2" in found


@pytest.mark.parametrize(("direction", "goal"), [("forward", "198.51.100.10"), ("reply", "web1")])
def test_what_left_for_outside_arrived_as_far_as_we_know(direction: str, goal: str) -> None:
    verdict = Verdict(
        kind="left_domain", direction=direction, from_="web1", to="198.51.100.10", packets=100, where=WHERE
    )
    found = text(verdict, packets=Packets(colored=100, left_domain=100))
    assert f": 100 left for {goal} by web2, vSwitch web on server hv2" in found
    assert found.startswith("No, packets are not lost.")


def test_what_left_untranslated_is_no_success() -> None:
    why = Why(code="nat_missing", actor="tenant", summary="no NAT row claims it")
    verdict = Verdict(
        kind="left_domain",
        pattern="persistent",
        from_="web1",
        to="198.51.100.10",
        packets=9,
        where=WHERE,
        why=why,
    )
    found = text(verdict, loss="yes", loss_ratio=0.0, packets=Packets(colored=9, left_domain=9))
    assert found.startswith("Yes: packets left with an address that nobody can answer.")
    assert "✗ web1 → 198.51.100.10: 9 left the domain" in found
    assert "reason nat_missing" in found


def test_the_path_hop_by_hop() -> None:
    hops = tuple(
        HopAnswer(
            server=server,
            vfd="web",
            vfd_kind="vswitch",
            point=point,
            in_port="web1",
            out_port=out,
            five_tuple={},
            ttl=64,
        )
        for server, point, out in (
            ("hv1", "first_hop", ""),
            ("hv1", "remote_output", "web2"),
            ("hv2", "ingress", ""),
            ("hv2", "remote_output", "patch"),
            ("hv2", "egress", "web2"),
        )
    )
    found = text(DELIVERED, paths=(PathAnswer(packets=3, disposition="delivered", hops=hops, from_="web1", to="web2"),))
    lines = [line.strip() for line in found.splitlines()]
    start = lines.index("Path of 3 packets, web1 → web2 (forward):")
    assert lines[start + 1 :][:8] == [
        "server hv1",
        "├─ vSwitch web: colored on its way in (web1), TTL 64",
        "├─ vSwitch web: sent by tunnel (web1 → web2), TTL 64",
        "server hv2",
        "├─ vSwitch web: came in (web1), TTL 64",
        "├─ vSwitch web: handed on (web1 → patch), TTL 64",
        "├─ vSwitch web: handed out (web1 → web2), TTL 64",
        "└─ delivered",
    ]


def test_names_are_printed_as_they_are() -> None:
    odd = Where(server="[red]hv[/red]", vfd="sw[0]", vfd_kind="vswitch", port="[bold]p")
    found = text(
        Verdict(kind="dropped", from_="a[1]", to="b", packets=1, where=odd, why=WHY), loss="yes", notes=("[x] y",)
    )
    for name in ("[red]hv[/red]", "sw[0]", "[bold]p", "a[1]", "Note: [x] y"):
        assert name in found


def test_notes_and_cost_are_shown() -> None:
    cost = Cost(entries_installed=12, entries_left=1, copies_cut=3, time_to_verdict_s=2.34)
    found = text(notes=("hv3: the traffic can reach it, and no agent covers it",), cost=cost)
    assert "Note: hv3: the traffic can reach it" in found
    assert "2.3 s. 12 entries installed, 1 left" in found
    assert "3 copies cut" in found


def test_what_is_not_known_is_not_called_none() -> None:
    unknown = Verdict(kind="lost_between", from_="a", to="b", packets=1, where=Where(server="hv1"), why=WHY)
    assert "None" not in text(unknown, loss="yes")


class _Closed(StringIO):
    """Standard output whose reader has gone (`| head`)."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def fileno(self) -> int:
        raise OSError


def test_a_reader_that_goes_away_is_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the exit code would be 1, as of a loss."""
    monkeypatch.setattr("sys.stdout", _Closed())
    with pytest.raises(BrokenPipeError):
        render(Answer(task=TaskAnswer(id="t1", state="done"), loss="yes", verdicts=(DROPPED,)))
