"""What must hold for an answer: for any, and for one whose fault is known."""

from __future__ import annotations

import json
import math
import subprocess
import time
from dataclasses import dataclass
from typing import Any

from faults.facts import PROGRAM, Facts
from faults.model import ACTORS, Expect, Pair

DIAGNOSE_TIMEOUT_S = 60
KINDS = ("delivered", "dropped", "lost_between", "left_domain", "evidence_missing", "no_traffic")
COUNTED = KINDS[:-1]
OTHER_VPC = {"red": "blue-", "blue": "red-"}
POINTS = ("first_hop", "ingress", "logical_egress", "remote_output", "egress")
MAX_BEYOND_N = 1000
"""Coloring goes on until the task has noticed that N are colored: seconds, where the machine is busy."""


@dataclass(frozen=True)
class Answer:
    """What `vtrace diagnose --json` said."""

    code: int
    document: dict[str, Any]
    progress: str
    took_s: float

    @property
    def first(self) -> dict[str, Any]:
        return dict(self.document["verdicts"][0])

    def text(self) -> str:
        shown = {key: value for key, value in self.document.items() if key != "paths"}
        return f"exit {self.code} after {self.took_s:.1f} s\n{json.dumps(shown, indent=1)}\n{self.progress}"


def start(facts: Facts, *args: str, program: tuple[str, ...] = PROGRAM) -> subprocess.Popen[str]:
    """Begin a diagnosis on the lab."""
    argv = [*program, "diagnose", "--lab", facts.lab, "--json", *args]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], since: float) -> Answer:
    """Wait for its answer: exactly one document."""
    try:
        out, err = process.communicate(timeout=DIAGNOSE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    took_s = time.monotonic() - since
    try:
        document = json.loads(out)
    except ValueError:
        raise AssertionError(f"exit {process.returncode}, no single document:\n{out[:2000]}\n{err[-4000:]}") from None
    return Answer(process.returncode, document, err, took_s)


def end(process: subprocess.Popen[str]) -> None:
    """Ends a diagnosis that a failed test left; one that has ended stays as it is."""
    if process.poll() is None:
        process.kill()
        process.communicate(timeout=10)


def diagnose(facts: Facts, *args: str) -> Answer:
    """Run a diagnosis on the lab to its end."""
    since = time.monotonic()
    return finish(start(facts, *args), since)


def check_sound(answer: Answer, asked: int, *, alone: bool = True, hung: bool = False) -> None:
    """What holds for every answer, whatever the fault.

    Args:
        alone: no other task shares the bound of copies, which may cut some.
        hung: a server did not answer at the end, and the others restore for a while what it held back.
    """
    assert "error" not in answer.document, answer.text()
    document = answer.document
    counts, cost = document["packets"], document["cost"]
    text = answer.text()
    assert document["schema"] == 1, text
    assert counts["colored"] == sum(counts[kind] for kind in COUNTED), text
    for kind in COUNTED:
        assert counts[kind] == sum(v["packets"] for v in document["verdicts"] if v["kind"] == kind), text
    assert counts["colored"] <= asked * len(document["pairs"]), text
    settled = counts["colored"] - counts["evidence_missing"]
    lost = counts["dropped"] + counts["lost_between"]
    if settled:
        assert math.isclose(document["loss_ratio"], lost / settled, abs_tol=1e-6), text
    else:
        assert document["loss_ratio"] is None, text
    assert answer.code == {"no": 0, "yes": 1, "unknown": 3}[document["loss"]], text
    assert cost["entries_left"] == 0 or hung, text
    assert cost["copies_cut"] == 0 or not alone, text
    assert cost["packets_colored_beyond_n"] <= MAX_BEYOND_N, text
    assert 0 < cost["time_to_verdict_s"] <= answer.took_s, text
    assert sum(path["packets"] for path in document["paths"]) == counts["colored"], text
    for number, pair in enumerate(document["pairs"]):
        for index in pair["verdicts"]:
            verdict = document["verdicts"][index]
            assert (verdict["from"], verdict["to"]) == (pair["from"], pair["to"]), (number, text)
    for verdict in document["verdicts"]:
        assert verdict["kind"] in KINDS, text
        assert 0 <= verdict["confidence"] <= 1, text


def check_only_of(answer: Answer, pair: Pair) -> None:
    """Nothing of another VPC is in the answer, though it uses the same addresses at the same time."""
    addresses = {pair.src, pair.dst, pair.alias}
    for path in answer.document["paths"]:
        for hop in path["hops"]:
            assert hop["vfd"].startswith(f"{pair.vpc}-"), (hop, answer.text())
            assert hop["point"] in POINTS, hop
            ends = {hop["five_tuple"]["src"], hop["five_tuple"]["dst"]}
            assert len(ends & addresses) >= 1, (hop, answer.text())
            for port in (hop["in_port"], hop["out_port"]):
                assert not (port or "").startswith(OTHER_VPC[pair.vpc]), (hop, answer.text())
    for verdict in answer.document["verdicts"]:
        assert not (verdict["where"]["vfd"] or "").startswith(OTHER_VPC[pair.vpc]), answer.text()


def check_expected(answer: Answer, expect: Expect, facts: Facts) -> None:
    """The first verdict is the fault that was injected."""
    text = f"expected {expect}\n{answer.text()}"
    verdict = answer.first
    if expect.kind == "no_traffic":  # a guest that does not answer: what was delivered to it comes first
        verdict = next((v for v in answer.document["verdicts"] if v["kind"] == "no_traffic"), verdict)
    where, why = verdict["where"], verdict["why"]
    assert answer.document["loss"] == expect.loss, text
    assert answer.code == expect.exit_code, text
    assert (verdict["kind"], verdict["direction"]) == (expect.kind, expect.direction), text
    assert verdict["pattern"] == expect.pattern, text
    assert (where["server"], where["vfd"], where["vfd_kind"]) == (expect.server, expect.vfd, expect.vfd_kind), text
    assert where["next_server"] == expect.next_server, text
    if not expect.code:
        return
    assert (why["code"], why["actor"]) == (expect.code, ACTORS[expect.code]), text
    if expect.row is not None:
        row = expect.row
        uuids = facts.execute(
            "central", "ovn-nbctl", "--bare", "--columns=_uuid", "find", row.table, row.condition
        ).split()
        assert len(uuids) == 1, f"the injector made {uuids}, not one {row}"
        assert (why["object"]["type"], why["object"]["uuid"]) == (row.table, uuids[0]), text
    if expect.object_type is not None:
        assert why["object"]["type"] == expect.object_type, text
    for word in expect.object_words:
        assert word in why["object"]["name"] + why["object"]["uuid"], f"{word}: {text}"
    told = why["summary"] + json.dumps(why["evidence"])
    for word in expect.evidence_words:
        assert word in told, f"{word}: {text}"
    if expect.kind in ("dropped", "lost_between"):
        assert verdict["confidence"] >= 0.8, text
        assert why["evidence"], text
