"""Answers held against what was injected."""

from __future__ import annotations

from typing import Any

from vtrace.bench.fault import Right, Row
from vtrace.bench.judging import Expected, Judgement, expected, judge

UUID = "11111111-2222-3333-4444-555555555555"
DROP = Right(
    server="one", vfd="front", vfd_kind="vswitch", direction="forward", row=Row(table="ACL", find="priority=1")
)
BETWEEN = Right(
    kind="lost_between",
    server="one",
    vfd="front",
    vfd_kind="vswitch",
    next_server="two",
    direction="forward",
    object="Tunnel",
)
HEALTHY = Right(kind="delivered", loss="no", server="two", vfd="front", vfd_kind="vswitch", direction="forward")


def verdict(
    code: str | None = "acl_drop",
    *,
    kind: str = "dropped",
    server: str = "one",
    vfd: str = "front",
    vfd_kind: str = "vswitch",
    next_server: str | None = None,
    direction: str = "forward",
    pattern: str | None = "persistent",
    object_: tuple[str, str] | None = ("ACL", UUID),
) -> dict[str, Any]:
    named = {"type": object_[0], "uuid": object_[1], "name": ""} if object_ else None
    where = {"server": server, "vfd": vfd, "vfd_kind": vfd_kind, "next_server": next_server}
    why = {"code": code, "object": named} if code else None
    return {"kind": kind, "direction": direction, "pattern": pattern, "where": where, "why": why}


def document(*verdicts: dict[str, Any], loss: str = "yes") -> dict[str, Any]:
    return {"loss": loss, "verdicts": list(verdicts)}


def dropped(code: str = "acl_drop", uuid: str = UUID) -> Expected:
    return expected([(DROP, code, uuid)])


def three(found: Judgement) -> tuple[bool, bool, bool]:
    return found.loss, found.where, found.why


def test_a_right_answer() -> None:
    found = judge(dropped(), document(verdict()))
    assert three(found) == (True, True, True)
    assert found.all_three
    assert (found.unknown, found.false_alarm, found.given) == (False, False, ("acl_drop",))


def test_a_wrong_loss() -> None:
    assert three(judge(dropped(), document(verdict(), loss="no"))) == (False, True, True)
    assert three(judge(dropped(), document(verdict(), loss="unknown"))) == (False, True, True)


def test_each_part_of_a_place_counts() -> None:
    others = (
        verdict(server="two"),
        verdict(vfd="back"),
        verdict(vfd_kind="vrouter"),
        verdict(kind="lost_between"),
        verdict(direction="reply"),
    )
    for other in others:
        assert three(judge(dropped(), document(other))) == (True, False, True), other


def test_the_next_server_counts_of_what_is_lost_between() -> None:
    right = expected([(BETWEEN, "physical_loss", "")])
    one = verdict("physical_loss", kind="lost_between", next_server="two", object_=("Tunnel", ""))
    assert judge(right, document(one)).all_three
    other = verdict("physical_loss", kind="lost_between", next_server="three", object_=("Tunnel", ""))
    assert three(judge(right, document(other))) == (True, False, True)
    # Of what is dropped nobody asks for it.
    assert judge(dropped(), document(verdict(next_server="two"))).all_three


def test_a_cause_is_its_code_its_object_and_the_row() -> None:
    for other in (
        verdict("acl_reject"),
        verdict(None),
        verdict(object_=("ACL", "another")),
        verdict(object_=("Logical_Flow", UUID)),
        verdict(object_=None),
    ):
        assert three(judge(dropped(), document(other))) == (True, True, False), other
    # A row that could not be found is not asked for; its table is.
    assert judge(dropped(uuid=""), document(verdict(object_=("ACL", "another")))).all_three
    assert not judge(dropped(uuid=""), document(verdict(object_=("QoS", "another")))).why


def test_the_first_verdict_is_the_answer() -> None:
    second = verdict("no_route", object_=("Logical_Router", UUID))
    assert judge(dropped(), document(verdict(), second)).all_three
    assert three(judge(dropped(), document(second, verdict()))) == (True, True, False)


def test_no_verdict_and_an_error_are_wrong() -> None:
    for answer in (document(), {"error": {"what": "it broke"}}):
        found = judge(dropped(), answer)
        assert (found.where, found.why, found.given) == (False, False, ("",))
    assert judge(dropped(), {"error": {}}).unknown


def test_unknown_is_wrong_and_told_apart() -> None:
    found = judge(dropped(), document(verdict("unknown", object_=None)))
    assert three(found) == (True, True, False)
    assert found.unknown


def test_healthy_traffic() -> None:
    right = expected([(HEALTHY, "", "")])
    arrived = verdict(None, kind="delivered", server="two", pattern=None)
    assert judge(right, document(arrived, loss="no")).all_three
    false_alarm = judge(right, document(verdict(), loss="yes"))
    assert three(false_alarm) == (False, False, False)
    assert false_alarm.false_alarm
    # What the other direction did stands beside it.
    silent = verdict("guest_not_answering", kind="no_traffic", direction="reply", pattern=None)
    assert judge(right, document(silent, arrived, loss="no")).all_three


def test_a_silent_source_leaves_the_loss_unknown() -> None:
    row = Row(table="Logical_Switch_Port", find="name=a")
    silent = Right(kind="no_traffic", loss="unknown", server="one", vfd="front", vfd_kind="vswitch", row=row)
    right = expected([(silent, "source_silent", UUID)])
    assert right.loss == "unknown"
    said = verdict("source_silent", kind="no_traffic", pattern=None, object_=("Logical_Switch_Port", UUID))
    assert judge(right, document(said, loss="unknown")).all_three
    assert not judge(right, document(said, loss="unknown")).unknown
    assert not judge(right, document(said, loss="no")).loss


def test_two_faults_need_a_verdict_each_and_no_other() -> None:
    route = Right(
        server="one",
        vfd="core",
        vfd_kind="vrouter",
        direction="forward",
        row=Row(table="Logical_Router", find="name=core"),
    )
    right = expected([(DROP, "acl_drop", UUID), (route, "no_route", "r")])
    no_route = verdict("no_route", vfd="core", vfd_kind="vrouter", object_=("Logical_Router", "r"))
    arrived = verdict(None, kind="delivered", pattern=None)
    for answer in (document(verdict(), no_route), document(no_route, verdict(), arrived)):
        found = judge(right, answer)
        assert found.all_three
        assert set(found.given) == {"acl_drop", "no_route"}
    assert three(judge(right, document(verdict()))) == (True, False, False)
    third = verdict("policy_route_drop", vfd="core", vfd_kind="vrouter", server="two")
    assert three(judge(right, document(verdict(), no_route, third))) == (True, False, False)
    wrong = verdict("blackhole_route", vfd="core", vfd_kind="vrouter", object_=("Logical_Router", "r"))
    assert three(judge(right, document(verdict(), wrong))) == (True, True, False)


def test_two_faults_at_one_place_are_told_apart() -> None:
    """Two pairs that the same router drops for different causes."""
    places = {"server": "one", "vfd": "core", "vfd_kind": "vrouter", "direction": "forward"}
    route = Right(**places, row=Row(table="Logical_Router", find="name=core"))  # type: ignore[arg-type]
    policy = Right(**places, row=Row(table="Logical_Router_Policy", find="priority=1"))  # type: ignore[arg-type]
    right = expected([(route, "no_route", "r"), (policy, "policy_route_drop", "p")])
    no_route = verdict("no_route", vfd="core", vfd_kind="vrouter", object_=("Logical_Router", "r"))
    dropped_by = verdict("policy_route_drop", vfd="core", vfd_kind="vrouter", object_=("Logical_Router_Policy", "p"))
    assert judge(right, document(no_route, dropped_by)).all_three
    assert judge(right, document(dropped_by, no_route)).all_three
    assert not judge(right, document(no_route, no_route)).why


def test_the_loss_of_two_is_the_worse_one() -> None:
    silent = Right(kind="no_traffic", loss="no", server="two", vfd="front", vfd_kind="vswitch", direction="reply")
    assert expected([(silent, "guest_not_answering", ""), (DROP, "acl_drop", UUID)]).loss == "yes"
    assert expected([(silent, "guest_not_answering", "")]).loss == "no"
