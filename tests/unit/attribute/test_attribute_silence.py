"""Traffic that was not there: a silent source, an unanswered ARP, a guest that does not answer."""

from __future__ import annotations

import pytest
from builders import FOREIGN, HV1, INVENTORY, Recorder, case, inspection, logical, pair, port, step, without
from msgspec.structs import replace

from vtrace.attribute.case import NeighborWatch, ReplyCount
from vtrace.attribute.silence import keeps_from_color
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


def test_what_another_task_colored_is_no_silence() -> None:
    found = attribute(case([], taken={0: 40}))
    verdict = only(found)
    assert (verdict.kind, code(verdict), verdict.packets, found.loss) == ("evidence_missing", "unknown", 0, "unknown")
    assert verdict.why is not None
    assert "another task of VTrace colored 40 packets" in verdict.why.summary
    # Who got some of the packets has an answer of its own.
    assert only(attribute(case(delivered(), taken={0: 40}))).kind == "delivered"


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


@pytest.mark.parametrize("state", ["", "does not answer"])
def test_a_request_that_ovn_controller_has_to_answer(state: str) -> None:
    """A neighbor solicitation is no packet that the entry dropped that hands it over."""
    answers = logical("ls_in_arp_rsp", match="nd_ns")
    asked = inspection(step(answers, ("controller(reason=no_match)",)), chassis=HV1, outcome="controller")
    watched = (NeighborWatch(pair=0, target="10.0.1.2", requests=3, answers=0),)
    verdict = attribute(case([], [replace(asked, pair=-1, controller=state)], neighbors=watched)).verdicts[0]
    assert code(verdict) == "neighbor_unresolved"
    assert verdict.why is not None
    assert "ovn-controller of hv1 has to answer, and did not" in verdict.why.summary
    assert "dropped" not in verdict.why.summary
    assert state in verdict.why.summary


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


# --- both directions -------------------------------------------------------------------------------------

BOTH = [pair(), pair("web2", "web1", index=1, direction=Direction.REPLY)]


def in_both(records: list[LogRecord], *, errors: int = 0, neighbors: tuple[NeighborWatch, ...] = ()) -> Attribution:
    return attribute(
        case(
            records,
            pairs=BOTH,
            replies=(ReplyCount(pair=0, errors=errors),),
            reply_asked=True,
            neighbors=neighbors,
        )
    )


def test_a_guest_that_does_not_answer_lost_nothing_in_the_reply() -> None:
    found = in_both(delivered())
    assert [(p.direction, p.loss, p.colored) for p in found.pairs] == [("forward", "no", 1), ("reply", "no", 0)]
    (number,) = found.pairs[1].verdicts
    silent = found.verdicts[number]
    assert (silent.kind, code(silent), silent.direction) == ("no_traffic", "guest_not_answering", "reply")
    assert (silent.from_, silent.to, silent.where.port) == ("web1", "web2", "web2")
    assert found.loss == "no"


def test_a_guest_that_was_reached_by_nothing_is_not_said_to_be_silent() -> None:
    log = Recorder()
    log.first(1)
    found = in_both(log.records)
    assert [(p.direction, p.loss) for p in found.pairs] == [("forward", "yes"), ("reply", "unknown")]
    (number,) = found.pairs[1].verdicts
    silent = found.verdicts[number]
    assert (silent.kind, code(silent)) == ("no_traffic", "source_silent")
    assert silent.why is not None
    assert "nothing to answer" in silent.why.summary
    assert found.loss == "yes"


def test_an_error_is_an_answer_though_it_is_no_reply() -> None:
    found = in_both(delivered(), errors=3)
    assert code(found.verdicts[found.pairs[1].verdicts[0]]) == "source_silent"
    assert [p.loss for p in found.pairs] == ["no", "unknown"]


def test_a_guest_that_cannot_find_its_neighbor_is_no_guest_that_does_not_answer() -> None:
    asked = NeighborWatch(pair=1, target="10.0.1.1", requests=3, answers=0)
    found = in_both(delivered(), neighbors=(asked,))
    assert code(found.verdicts[found.pairs[1].verdicts[0]]) == "neighbor_unresolved"
    assert found.pairs[1].loss == "unknown"


def test_a_pair_whose_turn_did_not_come_is_not_said_to_be_silent() -> None:
    other = pair("web1", "db1", index=1)
    found = attribute(case(delivered(), pairs=[pair(), other], not_begun=frozenset({1})))
    (number,) = found.pairs[1].verdicts
    verdict = found.verdicts[number]
    assert (verdict.kind, code(verdict), verdict.packets) == ("evidence_missing", "unknown", 0)
    assert [p.loss for p in found.pairs] == ["no", "unknown"]


def test_what_is_sent_to_an_address_of_two_vpcs_is_for_the_one_next_to_the_source() -> None:
    apart = replace(pair(), elsewhere=("10.0.1.2",))
    verdict = only(attribute(case([], pairs=[apart])))
    assert (verdict.kind, code(verdict)) == ("no_traffic", "source_silent")
    assert verdict.why is not None
    assert "another VPC" in verdict.why.summary
    assert "10.0.1.2" in verdict.why.summary


def test_an_entry_by_hand_that_the_switch_cannot_follow_keeps_packets_from_color() -> None:
    loops = step(FOREIGN, ("resubmit(,20)",), table=20, cookie=0)
    found = inspection(loops, uncolored=True, errors=("over max translation depth 64",))
    cause = keeps_from_color(found, pair(), INVENTORY, seen=False)
    assert cause is not None
    assert cause.code == "foreign_flow_entry"
    assert keeps_from_color(found, pair(), INVENTORY, seen=True) is None
    whole = inspection(loops, uncolored=True)
    assert keeps_from_color(whole, pair(), INVENTORY, seen=False) is None
