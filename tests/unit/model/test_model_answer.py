"""The answer's document has the keys that design.md ("The answer") writes down."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from vtrace.errors import (
    BridgeNotUnderstoodError,
    CannotWorkError,
    ProtocolError,
    RefusedError,
    UsageError,
    VTraceError,
)
from vtrace.model.answer import (
    KINDS,
    Answer,
    Evidence,
    HopAnswer,
    ObjectRef,
    PairAnswer,
    PathAnswer,
    TaskAnswer,
    Verdict,
    Where,
    Why,
)
from vtrace.model.openflow import Cookie, FlowEntry, TableId

WHY = Why(
    code="acl_drop",
    actor="tenant",
    summary="s",
    object=ObjectRef(type="ACL"),
    evidence=(Evidence(source="a", text="b"),),
)
HOP = HopAnswer(
    server="s",
    vfd="v",
    vfd_kind="vswitch",
    point="egress",
    in_port="a",
    out_port="b",
    five_tuple={"proto": "tcp"},
    ttl=3,
)
ANSWER = Answer(
    task=TaskAnswer(id="1", state="done", from_=("a",), to=("b",)),
    verdicts=(Verdict(kind="dropped", from_="a", to="b", where=Where(server="s"), why=WHY),),
    pairs=(PairAnswer(from_="a", to="b"),),
    paths=(PathAnswer(packets=1, disposition="delivered", hops=(HOP,)),),
)
# Keys that the code has beside those of design.md.
ADDED = {"notes"}
ADDED_TO_A_PATH = {"from", "to", "direction", "packets_with_gaps"}


def document() -> dict[str, Any]:
    found = json.loads(msgspec.json.encode(ANSWER))
    assert isinstance(found, dict)
    return found


def words(text: str) -> set[str]:
    return set(text.split())


def test_keys() -> None:
    found = document()
    top = "schema task loss loss_ratio pattern packets verdicts pairs contrast paths cost changes"
    assert found.keys() == words(top) | ADDED
    assert found["schema"] == 1
    assert found["task"].keys() == words("id state from to five_tuple direction packets_asked started finished")
    assert found["packets"].keys() == words("colored delivered dropped lost_between left_domain evidence_missing")
    assert found["cost"].keys() == words(
        "entries_installed entries_left packets_colored_beyond_n packets_for_others packets_in_doubt copies_cut "
        "log_bytes log_records_lost time_to_verdict_s"
    )


def test_keys_of_the_lists() -> None:
    found = document()
    (verdict,) = found["verdicts"]
    assert verdict.keys() == words("kind pattern direction from to packets confidence where why")
    assert verdict["where"].keys() == words("server server_ip vfd vfd_kind port next_server next_vfd")
    assert verdict["why"].keys() == words("code actor summary object evidence fix")
    assert verdict["why"]["object"].keys() == words("type uuid name")
    assert verdict["why"]["evidence"][0].keys() == words("source text chassis at")
    assert found["pairs"][0].keys() == words("from to direction loss loss_ratio colored verdicts")
    assert found["paths"][0].keys() == words("packets disposition hops") | ADDED_TO_A_PATH
    assert found["paths"][0]["hops"][0].keys() == words(
        "server vfd vfd_kind point in_port out_port five_tuple ttl rewritten"
    )


def test_what_is_not_known_is_null_and_not_left_out() -> None:
    found = document()
    assert found["loss_ratio"] is None
    assert found["pattern"] is None
    assert found["verdicts"][0]["where"]["next_server"] is None
    assert found["verdicts"][0]["why"]["fix"] is None


def test_an_answer_decodes_to_itself() -> None:
    assert msgspec.json.decode(msgspec.json.encode(ANSWER), type=Answer) == ANSWER


def test_kinds_are_those_of_the_design() -> None:
    assert set(KINDS) == words("delivered dropped lost_between left_domain evidence_missing no_traffic")


def test_an_entry_is_a_line_of_ovs_ofctl() -> None:
    entry = FlowEntry(
        table=TableId(65), priority=9, cookie=Cookie(0x5654), match="ip,reg10=0/0x3", actions="drop", hard_timeout_s=7
    )
    assert entry.text() == "table=65,priority=9,cookie=0x5654,hard_timeout=7,ip,reg10=0/0x3,actions=drop"


def test_exit_codes_of_errors() -> None:
    codes = {UsageError: 2, CannotWorkError: 4, BridgeNotUnderstoodError: 4, RefusedError: 4, ProtocolError: 4}
    assert {kind: kind.exit_code for kind in codes} == codes
    assert all(issubclass(kind, VTraceError) for kind in codes)


def test_an_error_says_what_where_why_and_what_next() -> None:
    error = UsageError("No port", "--to", "nobody has it", "Name another")
    assert str(error) == "No port (--to): nobody has it. Name another"
    assert error.as_dict() == {"what": "No port", "where": "--to", "why": "nobody has it", "next_step": "Name another"}
    assert str(UsageError("No port")) == "No port"
