"""Holds an answer against what was injected, as a strict operator would."""

from __future__ import annotations

import json

from faults import answers
from faults.answers import Answer
from faults.facts import Facts
from faults.model import ACTORS, Expect

from crossing.faults import Injected
from crossing.scope import Scope
from crossing.ways import Way


def check_path(answer: Answer, way: Way, ip: int, packets: int) -> None:
    """Every packet took the whole way: device by device, as the topology says."""
    text = answer.text()
    mine = [p for p in answer.document["paths"] if p["direction"] == way.direction]
    assert sum(p["packets"] for p in mine if p["disposition"] == way.arrival) == packets, text
    for path in mine:
        hops = [
            (h["server"], h["vfd"], h["vfd_kind"], h["point"], h["in_port"], h["out_port"] or None)
            for h in path["hops"]
        ]
        assert hops == way.hops(), f"{json.dumps(hops, indent=1)}\n{text}"
        for hop in path["hops"]:
            assert (hop["five_tuple"]["src"], hop["five_tuple"]["dst"]) == way.ends[ip], (hop, text)  # type: ignore[index]
        ttls = [hop["ttl"] for hop in path["hops"]]
        routers = sum(not leg.is_switch for leg in way.legs)
        assert (ttls[0] - ttls[-1], ttls) == (routers, sorted(ttls, reverse=True)), text


def check_healthy(answer: Answer, scope: Scope, packets: int, *, alone: bool = True) -> None:
    """No loss: all packets arrived, and the answer shows their way."""
    way, text = scope.way, answer.text()
    answers.check_sound(answer, packets, alone=alone)
    last = way.legs[-1]
    assert (answer.document["loss"], answer.code) == ("no", 0), text
    assert answer.document["loss_ratio"] == 0, text
    first = answer.first
    assert (first["kind"], first["direction"], first["packets"]) == (way.arrival, way.direction, packets), text
    place = (first["where"]["server"], first["where"]["vfd"], first["where"]["vfd_kind"], first["where"]["port"])
    assert place == (last.end_server, last.vfd, last.kind, last.out_port), text
    assert first["why"] is None, text
    check_path(answer, way, scope.ip, packets)


def check_lost(answer: Answer, scope: Scope, fault: Injected, facts: Facts, asked: int, *, alone: bool = True) -> None:
    """All packets were lost at the place of the fault, of the injected cause, and nothing else is in the answer."""
    text = f"{fault.name}: {fault.expect}\n{answer.text()}"
    answers.check_sound(answer, asked, alone=alone)
    _check_verdict(answer, fault.expect, facts, text)
    verdict = answer.first
    assert answer.document["loss_ratio"] == 1, text
    assert verdict["packets"] == answer.document["packets"]["colored"], text
    assert len(answer.document["verdicts"]) == 1, text
    assert verdict["why"]["summary"], text
    for word in fault.fix:
        assert word in (verdict["why"]["fix"] or ""), f"fix without {word!r}: {text}"
    check_prefix(answer, scope.way, verdict["where"])


def check_prefix(answer: Answer, way: Way, where: dict[str, object]) -> None:
    """The paths of lost packets are the beginning of the way, up to the device that is named."""
    whole = way.hops()
    for path in answer.document["paths"]:
        hops = [
            (h["server"], h["vfd"], h["vfd_kind"], h["point"], h["in_port"], h["out_port"] or None)
            for h in path["hops"]
        ]
        assert hops == whole[: len(hops)], f"{json.dumps(hops, indent=1)}\n{answer.text()}"
        last, following = whole[len(hops) - 1], whole[min(len(hops), len(whole) - 1)]
        assert (where["server"], where["vfd"]) in (last[:2], following[:2]), answer.text()


def _check_verdict(answer: Answer, expect: Expect, facts: Facts, text: str) -> None:
    verdict = answer.first
    where, why = verdict["where"], verdict["why"]
    assert (answer.document["loss"], answer.code) == (expect.loss, expect.exit_code), text
    assert (verdict["kind"], verdict["direction"]) == (expect.kind, expect.direction), text
    assert verdict["pattern"] == expect.pattern, text
    assert (where["server"], where["vfd"], where["vfd_kind"]) == (expect.server, expect.vfd, expect.vfd_kind), text
    assert (where["next_server"], where["port"]) == (expect.next_server, expect.port), text
    assert (why["code"], why["actor"]) == (expect.code, ACTORS[expect.code or ""]), text
    assert verdict["confidence"] >= 0.8, text
    assert why["evidence"], text
    if expect.row is not None:
        uuids = facts.execute(
            "central", "ovn-nbctl", "--bare", "--columns=_uuid", "find", expect.row.table, expect.row.condition
        ).split()
        assert len(uuids) == 1, f"the injector made {uuids}, not one {expect.row}"
        assert (why["object"]["type"], why["object"]["uuid"]) == (expect.row.table, uuids[0]), text
    if expect.object_type is not None:
        assert why["object"]["type"] == expect.object_type, text
    for word in expect.object_words:
        assert word in why["object"]["name"] + why["object"]["uuid"], f"{word}: {text}"
