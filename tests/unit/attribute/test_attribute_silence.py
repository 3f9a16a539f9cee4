"""Traffic that was not there: a silent source, an unanswered ARP, a guest that does not answer."""

from __future__ import annotations

import pytest
from builders import FOREIGN, INVENTORY, Recorder, case, inspection, logical, pair, port, step, without
from msgspec.structs import replace

from vtrace.attribute.case import NeighborWatch, ReplyCount
from vtrace.attribute.verdicts import Attribution, attribute
from vtrace.model.answer import Verdict
from vtrace.model.record import LogRecord
from vtrace.model.task import Direction


def only(found: Attribution) -> Verdict:
    (verdict,) = found.verdicts
    return verdict


def code(verdict: Verdict) -> str:
    return verdict.why.code if verdict.why else ""


def delivered() -> list[LogRecord]:
    log = Recorder()
    log.switched(1)
    return log.records


UNANSWERED = NeighborWatch(pair=0, target="10.0.1.2", requests=3, answers=0)


def test_source_silent() -> None:
    found = attribute(case([]))
    verdict = only(found)
    assert (verdict.kind, code(verdict), verdict.packets, verdict.pattern) == ("no_traffic", "source_silent", 0, None)
    where = verdict.where
    assert (where.server, where.vfd, where.port, where.next_server) == ("hv1", "web", "web1", None)
    assert (found.loss, found.loss_ratio, found.pattern) == ("unknown", None, None)


def test_a_silent_source_of_the_reply_is_the_destination() -> None:
    verdict = only(attribute(case([], pairs=[pair("web2", "web1", direction=Direction.REPLY)])))
    assert (verdict.direction, verdict.from_, verdict.to) == ("reply", "web1", "web2")
    assert (verdict.where.server, verdict.where.port) == ("hv2", "web2")


def test_neighbor_unresolved() -> None:
    verdict = only(attribute(case([], neighbors=(UNANSWERED,))))
    assert (verdict.kind, code(verdict)) == ("no_traffic", "neighbor_unresolved")
    assert verdict.why is not None
    assert verdict.why.object is not None
    assert (verdict.why.object.type, verdict.why.object.name) == ("Logical_Switch_Port", "web1")
    assert "10.0.1.2" in verdict.why.summary
    assert (verdict.where.server, verdict.where.port) == ("hv1", "web1")


@pytest.mark.parametrize(
    "watch", [replace(UNANSWERED, answers=1), replace(UNANSWERED, pair=1), replace(UNANSWERED, requests=0)], ids=str
)
def test_an_answered_request_or_that_of_another_pair_is_not_unresolved(watch: NeighborWatch) -> None:
    assert code(only(attribute(case([], neighbors=(watch,))))) == "source_silent"


def test_a_source_that_asked_and_was_answered_is_not_said_to_have_asked_nothing() -> None:
    verdict = only(attribute(case([], neighbors=(replace(UNANSWERED, answers=3),))))
    assert verdict.why is not None
    assert "no ARP" not in verdict.why.summary


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "does not answer"),
        ({"enabled": False}, "disabled"),
        ({"chassis": ""}, "no chassis has bound it"),
        ({"up": False}, "not up"),
        ({"addresses": ("0a:00:00:00:00:02 10.0.1.99",)}, "no port"),
    ],
    ids=["guest", "disabled", "unbound", "down", "nobody"],
)
def test_why_nobody_answered(changes: dict[str, object], words: str) -> None:
    inventory = without(INVENTORY, web2=port("web2", **changes))
    verdict = only(attribute(case([], neighbors=(UNANSWERED,), inventory=inventory)))
    assert verdict.why is not None
    assert words in verdict.why.summary


def test_what_ended_the_request_is_said() -> None:
    drop = step(logical("ls_in_check_port_sec", 'inport == "web1"'))
    verdict = only(attribute(case([], [inspection(drop, number=-1)], neighbors=(UNANSWERED,))))
    assert code(verdict) == "neighbor_unresolved"
    assert verdict.why is not None
    assert "port security of web1" in verdict.why.summary
    assert verdict.why.evidence


def test_an_entry_of_the_highest_priority_that_keeps_packets_from_being_colored() -> None:
    foreign = inspection(step(FOREIGN, table=0, priority=65535, cookie=0))
    found = attribute(case([], [replace(foreign, uncolored=True)]))
    verdict = only(found)
    assert (verdict.kind, code(verdict), verdict.pattern) == ("dropped", "foreign_flow_entry", "persistent")
    assert (verdict.where.server, verdict.where.port) == ("hv1", "web1")
    assert found.loss == "yes"


def test_guest_not_answering() -> None:
    found = attribute(case(delivered(), replies=(ReplyCount(pair=0),)))
    # None is a loss, so the one with more packets is first.
    assert [(v.kind, v.direction) for v in found.verdicts] == [("delivered", "forward"), ("no_traffic", "reply")]
    silent = found.verdicts[1]
    assert code(silent) == "guest_not_answering"
    assert (silent.from_, silent.to, silent.packets, silent.pattern) == ("web1", "web2", 0, None)
    assert (silent.where.server, silent.where.vfd, silent.where.port) == ("hv2", "web", "web2")
    assert silent.why is not None
    assert (silent.why.actor, silent.why.object and silent.why.object.name) == ("guest", "web2")
    assert (found.loss, found.pattern) == ("no", None)


@pytest.mark.parametrize("answer", [{"packets": 1}, {"resets": 1}, {"errors": 1}], ids=str)
def test_any_answer_is_an_answer(answer: dict[str, int]) -> None:
    assert only(attribute(case(delivered(), replies=(ReplyCount(pair=0, **answer),)))).kind == "delivered"


def test_a_guest_that_got_nothing_owes_no_answer() -> None:
    log = Recorder()
    log.first(1)
    found = attribute(case(log.records, replies=(ReplyCount(pair=0),)))
    assert "guest_not_answering" not in {code(v) for v in found.verdicts}


def test_where_the_reply_is_a_task_of_its_own_it_is_not_counted_twice() -> None:
    assert only(attribute(case(delivered(), replies=(ReplyCount(pair=0),), reply_asked=True))).kind == "delivered"
