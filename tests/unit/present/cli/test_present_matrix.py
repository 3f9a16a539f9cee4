"""The loss matrix says who loses packets to whom, how much, and why; in 80 columns and few lines."""

from __future__ import annotations

from collections.abc import Iterable
from io import StringIO

import pytest
from msgspec.structs import replace
from rich.console import Console

from vtrace.model.answer import Answer, ObjectRef, Packets, PairAnswer, TaskAnswer, Verdict, Where, Why
from vtrace.present.cli.matrix import MOST_ROWS, WIDTH, causes, letter, matrix
from vtrace.present.cli.render import render

ACL = Verdict(
    kind="dropped",
    pattern="persistent",
    packets=10,
    where=Where(server="hv3", vfd="db", vfd_kind="vswitch", port="db1"),
    why=Why(code="acl_drop", actor="tenant", summary="the ACL dropped it", object=ObjectRef(type="ACL", uuid="1")),
)
WIRE = Verdict(
    kind="lost_between",
    pattern="persistent",
    packets=3,
    where=Where(server="hv1", vfd="db", vfd_kind="vswitch", port="ovn-hv3", next_server="hv3"),
    why=Why(code="physical_loss", actor="physical", summary="the wire lost it", object=ObjectRef(type="Tunnel")),
)
DELIVERED = Verdict(kind="delivered", packets=10, where=ACL.where)
SILENT = Verdict(kind="no_traffic", why=Why(code="source_silent", actor="guest", summary="nothing left it"))
MUTE = Verdict(
    kind="no_traffic", direction="reply", why=Why(code="guest_not_answering", actor="guest", summary="nothing back")
)
UNRESOLVED = Verdict(kind="no_traffic", why=Why(code="neighbor_unresolved", actor="provider", summary="nobody answers"))
KEPT = replace(ACL, packets=0, why=Why(code="foreign_flow_entry", actor="provider", summary="it comes before ours"))
MISSING = Verdict(kind="evidence_missing", packets=5, where=Where(server="hv2"))

# What one pair and direction came to: (loss, ratio, colored, verdicts).
WELL = ("no", 0.0, 10, (DELIVERED,))
DROPPED = ("yes", 1.0, 10, (ACL,))
QUIET = ("unknown", None, 0, (SILENT,))

Told = tuple[str, float | None, int, tuple[Verdict, ...]]


def answer(told: dict[tuple[str, str, str], Told], direction: str = "forward") -> Answer:
    verdicts: list[Verdict] = []
    pairs = []
    for (start, end, way), (loss, ratio, colored, found) in told.items():
        first = len(verdicts)
        verdicts += [replace(v, from_=start, to=end, direction=way) for v in found]
        pairs.append(
            PairAnswer(
                from_=start,
                to=end,
                direction=way,
                loss=loss,
                loss_ratio=ratio,
                colored=colored,
                verdicts=tuple(range(first, len(verdicts))),
            )
        )
    packets = Packets(colored=sum(p.colored for p in pairs))
    task = TaskAnswer(id="t1", state="done", direction=direction)
    return Answer(task=task, loss="yes", packets=packets, verdicts=tuple(verdicts), pairs=tuple(pairs))


def forward(cells: dict[tuple[str, str], Told]) -> Answer:
    return answer({(start, end, "forward"): told for (start, end), told in cells.items()})


def lines(found: Answer) -> list[str]:
    return matrix(found, causes(found))


def cell(told: Told) -> str:
    """The cell of a pair beside one that is well."""
    return lines(forward({("a", "x"): told, ("b", "x"): WELL}))[2].split()[1]


def test_rows_send_and_columns_receive() -> None:
    found = forward({("a", "x"): WELL, ("a", "y"): DROPPED, ("b", "x"): QUIET, ("b", "y"): WELL})
    assert lines(found) == [
        "Loss in %, row to column:",
        "     x     y",
        "  a  0  100a",
        "  b  –     0",
        "  – nothing sent",
        "  a acl_drop: db on hv3, port db1",
    ]


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (WELL, "0"),
        (DROPPED, "100a"),
        (("yes", 0.004, 1000, (ACL, DELIVERED)), "<1a"),
        (("yes", 0.996, 1000, (ACL, DELIVERED)), ">99a"),
        (("yes", 0.335, 100, (ACL, WIRE, DELIVERED)), "34ab"),
        (QUIET, "–"),
        (("no", 0.0, 10, (DELIVERED, MUTE)), "0!"),
        (("no", None, 0, (MUTE,)), "!"),
        (("unknown", None, 0, (UNRESOLVED,)), "–a"),
        (("unknown", 0.0, 10, (DELIVERED, MISSING)), "0?"),
        (("unknown", None, 10, (MISSING,)), "?"),
        (("unknown", None, 0, (MISSING,)), "?"),
        (("yes", None, 0, (KEPT,)), "✗a"),
        (("yes", 0.0, 10, (replace(ACL, kind="left_domain"),)), "✗a"),
        (("no", 0.1, 100, (replace(WIRE, pattern="transient"), DELIVERED)), "10a"),
    ],
)
def test_silence_doubt_and_loss_are_told_apart(told: Told, text: str) -> None:
    assert cell(told) == text


def test_both_directions_of_a_pair_are_in_one_cell() -> None:
    told = {("a", "x", "forward"): DROPPED, ("a", "x", "reply"): QUIET, ("a", "y", "forward"): WELL}
    told[("a", "y", "reply")] = ("yes", 0.5, 10, (WIRE, DELIVERED))
    found = lines(answer(told, "both"))
    assert found[:3] == ["Loss in %, row to column / back:", "          x      y", "  a  100a/–  0/50b"]


def test_between_vms_on_both_sides_the_reply_is_the_other_ones_forward_direction() -> None:
    told = {("a", "b", "forward"): DROPPED, ("b", "a", "forward"): WELL}
    found = lines(answer(told, "both"))
    assert [line.split() for line in found[2:4]] == [["a", "·", "100a/0"], ["b", "0/100a", "·"]]
    # With one direction asked the other is none of a pair's.
    assert [line.split() for line in lines(answer(told))[2:4]] == [["a", "·", "100a"], ["b", "0", "·"]]


def test_a_reply_alone_says_which_way_it_travels() -> None:
    found = answer({("a", "x", "reply"): WELL, ("b", "x", "reply"): DROPPED}, "reply")
    assert lines(found)[0] == "Loss of the reply in %, column to row:"


def test_a_transient_loss_says_so_in_its_footnote() -> None:
    told = ("no", 0.1, 100, (replace(WIRE, pattern="transient"), DELIVERED))
    found = lines(forward({("a", "x"): told, ("b", "x"): WELL}))
    assert "  a physical_loss: db on hv1 to hv3 (transient)" in found


def test_one_cause_of_several_pairs_has_one_letter_and_two_causes_have_two() -> None:
    found = forward({("a", "x"): DROPPED, ("b", "x"): DROPPED, ("c", "x"): ("yes", 0.3, 10, (WIRE, DELIVERED))})
    assert [(c.letter, c.packets, len(c.verdicts)) for c in causes(found)] == [("a", 20, 2), ("b", 3, 1)]


def test_an_acl_of_another_place_or_row_is_another_cause() -> None:
    elsewhere = replace(ACL, where=replace(ACL.where, server="hv2"))
    other_row = replace(ACL, why=replace(ACL.why or SILENT.why, object=ObjectRef(type="ACL", uuid="2")))
    found = forward(
        {(name, "x"): ("yes", 1.0, 10, (v,)) for name, v in zip("abc", (ACL, elsewhere, other_row), strict=True)}
    )
    assert len(causes(found)) == 3


@pytest.mark.parametrize(("number", "text"), [(0, "a"), (25, "z"), (26, "aa"), (52, "ba"), (701, "zz"), (702, "aaa")])
def test_letters(number: int, text: str) -> None:
    assert letter(number) == text


# --- large sets ------------------------------------------------------------------------------------------


def full(rows: Iterable[str], columns: Iterable[str], told: dict[tuple[str, str], Told]) -> Answer:
    return forward({(r, c): told.get((r, c), WELL) for r in rows for c in columns if r != c})


def check_width(found: Answer) -> list[str]:
    made = lines(found)
    assert max(map(len, made)) <= WIDTH, made
    return made


def test_rows_and_columns_that_are_the_same_become_one() -> None:
    rows, columns = [f"web{n}" for n in range(16)], [f"db{n}" for n in range(16)]
    made = check_width(full(rows, columns, {("web3", "db5"): DROPPED}))
    assert made[1:4] == ["            db0 +14   db5", "  web0 +14        0     0", "  web3            0  100a"]
    assert any(line.startswith("  web0 +14: web0, web1, web2, web4") for line in made)
    assert not any("web3" in line for line in made if line.startswith("  web0 +14:"))


def test_a_mesh_in_which_all_is_well_is_one_line_and_what_is_not_stays_right() -> None:
    names = [f"vm{n}" for n in range(14)]
    made = check_width(full(names, names, {}))
    assert made[1:3] == ["           vm0 +13", "  vm0 +13        0"]
    # Two that differ only in what they send each other must not be taken together.
    made = check_width(full(names, names, {("vm0", "vm1"): DROPPED}))
    row = next(line.split() for line in made if line.startswith("  vm0 "))
    assert row.count("100a") == 1
    assert sum(line.count("100a") for line in made) == 1


def test_names_that_are_too_long_are_numbered() -> None:
    columns = [f"{n}f0e1d2c-3b4a-5968-7786-95a4b3c2d1e0" for n in range(4)]
    rows = "abcd"
    cells = [(r, c) for r in rows for c in columns]
    told = {ends: ("yes", n / 16, 16, (ACL, DELIVERED)) for n, ends in enumerate(cells, 1)}
    made = check_width(forward(told))
    assert made[1].split() == ["[1]", "[2]", "[3]", "[4]"]
    assert made[2].split() == ["a", "6a", "12a", "19a", "25a"]
    assert made[5].split() == ["d", "81a", "88a", "94a", "100a"]
    assert any("[3] 2f0e1d2c-3b4a-5968-7786-95a4b3c2d1e0" in line for line in made)


def test_one_sender_with_many_receivers_has_its_receivers_in_rows() -> None:
    told = {("web1", f"db{n:03}"): ("yes", n / 300, 300, (ACL, DELIVERED)) for n in range(1, 257)}
    made = check_width(forward(told))
    assert made[0] == "Loss in %, column to row:"
    assert made[1].split() == ["web1"]
    assert len(made) < MOST_ROWS + 15
    assert any(line.endswith("more rows: --json has them") for line in made)


def test_rows_in_which_something_is_wrong_are_kept() -> None:
    told: dict[tuple[str, str], Told] = {}
    for n in range(64):
        for column in ("x", "y"):
            ratio = (n * 2 + (column == "y")) / 200
            told[(f"web{n:02}", column)] = ("yes", ratio, 200, (ACL, DELIVERED)) if n >= 60 else WELL
    made = check_width(forward(told))
    assert [line.split()[0] for line in made[2:7]] == ["web00", "web60", "web61", "web62", "web63"]


def test_many_causes_do_not_make_many_lines() -> None:
    told = {}
    for n in range(256):
        own = replace(ACL, why=replace(ACL.why or SILENT.why, object=ObjectRef(type="ACL", uuid=str(n))))
        told[(f"web{n // 16}", f"db{n % 16}")] = ("yes", 1.0, 10, (own,))
    out = StringIO()
    render(forward(told), Console(file=out, width=80, highlight=False, soft_wrap=True))
    assert len(out.getvalue().splitlines()) < 250


# --- the whole text --------------------------------------------------------------------------------------


def text(found: Answer) -> str:
    out = StringIO()
    render(found, Console(file=out, width=200, highlight=False, soft_wrap=True))
    return out.getvalue()


def test_each_cause_is_told_with_its_own_packets() -> None:
    found = forward({("a", "x"): DROPPED, ("b", "x"): DROPPED, ("c", "x"): ("yes", 0.3, 10, (WIRE, DELIVERED))})
    made = text(found)
    assert "3 pairs (each direction is one): 3 with loss, 0 without, 0 unknown" in made
    assert "✗ a. 2 pairs: 20 dropped by vSwitch db on server hv3, port db1 (persistent)" in made
    assert "  of a → x 10, b → x 10" in made
    assert "✗ b. c → x: 3 lost between vSwitch db on server hv1 and server hv3 (persistent)" in made
    assert "reason acl_drop" in made
    assert "reason physical_loss" in made


def test_where_evidence_is_missing_is_said() -> None:
    told = ("unknown", 0.0, 10, (DELIVERED, MISSING))
    assert "• evidence is missing after hv2 (10 packets)" in text(forward({("a", "x"): told, ("b", "x"): told}))


@pytest.mark.parametrize("direction", ["forward", "both"])
def test_one_pair_has_no_matrix(direction: str) -> None:
    told = {("a", "x", "forward"): DROPPED}
    if direction == "both":
        told[("a", "x", "reply")] = QUIET
    made = text(answer(told, direction))
    assert "Loss in %" not in made
    assert "✗ a → x: 10 dropped by vSwitch db" in made


def test_names_are_printed_as_they_are() -> None:
    found = forward({("[red]a[/red]", "x[1]"): DROPPED, ("b", "x[1]"): WELL})
    assert "[red]a[/red]" in text(found)
    assert "x[1]" in text(found)
