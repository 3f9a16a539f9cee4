"""The records that a task keeps: alone, without topology, they tell what became of the packets as its answer does."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from faults import answers
from faults.facts import PROGRAM, Facts
from faults.running import Traffic

from vtrace.model.record_schema import RECORD_SCHEMA, evidence_of, streams_of

pytestmark = pytest.mark.lab

PACKETS = 30


def kept(facts: Facts, file: Path, *args: str) -> tuple[answers.Answer, dict[str, Any]]:
    """A diagnosis that keeps its records in a file, and what is made of that file alone."""
    answer = answers.diagnose(facts, *args, "--packets", str(PACKETS), "--records", str(file))
    done = subprocess.run([*PROGRAM, "reconstruct", str(file), "--json"], capture_output=True, text=True, timeout=60)
    document: dict[str, Any] = json.loads(done.stdout)
    assert [task["task"] for task in document["tasks"]] == [answer.document["task"]["id"]], answer.text()
    return answer, document


@pytest.mark.parametrize("placement", ["switched-remote", "routed-local", "routed-remote"])
def test_of_delivered_packets(facts: Facts, traffic: Traffic, tmp_path: Path, placement: str) -> None:
    pair = facts.pair(placement, 4)
    traffic.ping(pair, ("-i", "0.01", pair.dst), 0)
    file = tmp_path / "records.parquet"
    answer, document = kept(facts, file, "--from", pair.source, "--to", pair.destination, "--proto", "icmp")
    (found,) = document["tasks"][0]["pairs"]
    assert answer.document["packets"]["delivered"] == PACKETS, answer.text()
    assert (found["loss"], found["delivered"], found["packets"]) == ("no", found["packets"], found["packets"])
    assert found["packets"] == PACKETS + answer.document["cost"]["packets_colored_beyond_n"]
    assert (document["records_missing"], document["repeated"]) == (0, 0)
    (path,) = answer.document["paths"]
    assert [h["point"] for h in found["paths"][0]["hops"]] == [h["point"] for h in path["hops"]]
    table = pq.read_table(file)
    assert table.schema.equals(RECORD_SCHEMA)
    assert sum(end.written for end in streams_of(table.schema.metadata)) == table.num_rows
    assert answer.document["cost"]["log_bytes"] > 0


def test_of_packets_that_an_acl_drops(facts: Facts, traffic: Traffic, tmp_path: Path) -> None:
    pair = facts.pair("routed-remote", 4)
    match = f'outport == "{pair.destination}" && icmp4'
    facts.execute(
        "central", "ovn-nbctl", "--wait=hv", "acl-add", pair.destination_switch, "to-lport", "1000", match, "drop"
    )
    try:
        traffic.ping(pair, ("-i", "0.01", pair.dst), 0)
        file = tmp_path / "records.parquet"
        answer, document = kept(facts, file, "--from", pair.source, "--to", pair.destination, "--proto", "icmp")
    finally:
        facts.execute(
            "central", "ovn-nbctl", "--wait=hv", "acl-del", pair.destination_switch, "to-lport", "1000", match
        )
    assert answer.code == 1, answer.text()
    (found,) = document["tasks"][0]["pairs"]
    (loss,) = found["losses"]
    assert (found["loss"], found["dropped"], loss["kind"]) == ("yes", found["packets"], "dropped"), answer.text()
    assert (loss["why"]["code"], loss["why"]["object_type"]) == ("acl_drop", "ACL")
    assert loss["why"]["object_uuid"] == answer.first["why"]["object"]["uuid"]
    assert evidence_of(pq.read_schema(file).metadata)


def test_a_file_that_says_no_form(facts: Facts, tmp_path: Path) -> None:
    pair = facts.pair("switched-remote", 4)
    where = ("--from", pair.source, "--to", pair.destination, "--records")
    for file in (tmp_path / "x.csv", tmp_path / "nowhere" / "x.parquet"):
        answer = answers.diagnose(facts, *where, str(file))
        assert answer.code == 2, answer.text()
        assert "error" in answer.document
