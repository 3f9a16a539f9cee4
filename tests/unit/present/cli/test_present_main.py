"""The command line: exit codes and the one JSON document of wrong usage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import redirect_stdout

import pytest

from vtrace.errors import CannotWorkError
from vtrace.model.answer import Answer, TaskAnswer
from vtrace.present.cli import diagnose
from vtrace.present.cli.diagnose import exit_code
from vtrace.present.cli.main import first_leaf, main, parser, wants_json

WRONG = [
    [],
    ["no-such-command"],
    ["diagnose"],
    ["diagnose", "--from", "a"],
    ["diagnose", "--from", "a", "--to", "b", "--proto", "sctp"],
    ["diagnose", "--from", "a", "--to", "b", "--packets", "many"],
    ["diagnose", "--from", "a", "--to", "b", "--ip", "5"],
    ["diagnose", "--from", "a", "--to", "b", "--direction", "sideways"],
    ["diagnose", "--from", "a", "--to", "b", "--no-such-option"],
    ["diagnose", "--from", "a", "--to", "b", "--tcp-flags", "+nonsense", "--proto", "tcp"],
    ["diagnose", "--from", "a", "--to", "b", "--tcp-flags", "", "--proto", "tcp"],
]
LATE = [
    ["diagnose", "--from", "a", "--to", "b", "--packets", "0"],
    ["diagnose", "--from", ",", "--to", "b"],
    ["diagnose", "--from", "a", "--to", "b", "--dport", "80"],
    ["diagnose", "--from", "a", "--to", "b", "--timeout", "0"],
]


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_wrong_usage_exits_2_and_says_why(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("vtrace: ")
    assert "Traceback" not in err


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_wrong_usage_with_json_is_one_document(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert document.keys() == {"error"}
    assert document["error"].keys() == {"what", "where", "why", "next_step"}
    assert all(isinstance(text, str) for text in document["error"].values())
    assert document["error"]["what"]


@pytest.mark.parametrize("words", LATE, ids=" ".join)
def test_wrong_usage_is_told_before_the_place_is_looked_at(words: list[str]) -> None:
    assert main([*words, "--lab", "no-such-lab-of-the-unit-tests"]) == 2


def test_a_lab_that_is_not_up_is_a_place_where_it_cannot_work(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["diagnose", "--from", "a", "--to", "b", "--json", "--lab", "no-such-lab-of-the-unit-tests"]
    assert main(words) == 4
    assert json.loads(capsys.readouterr().out)["error"]["what"]


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["diagnose", "--help"], ["lab", "--help"]], ids=" ".join)
def test_help_exits_0(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 0
    assert "vtrace" in capsys.readouterr().out


def test_the_help_of_diagnose_has_the_options_of_the_design(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["diagnose", "--help"])
    out = capsys.readouterr().out
    options = "--from --to --proto --sport --dport --tcp-flags --icmp-type --ip --direction --packets --timeout --json"
    for option in f"{options} --watch --lab".split():
        assert option in out


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["diagnose", "--json"], True),
        (["lab", "exec", "web1", "--", "ip", "--json", "addr"], False),
        (["lab", "status", "--json", "--", "x"], True),
        ([], False),
    ],
)
def test_json_after_two_hyphens_is_somebody_elses(words: list[str], wanted: bool) -> None:
    assert wants_json(words) == wanted


@pytest.mark.parametrize(("loss", "code"), [("no", 0), ("yes", 1), ("unknown", 3)])
def test_exit_code_of_an_answer(loss: str, code: int) -> None:
    assert exit_code(Answer(task=TaskAnswer(id="1", state="done"), loss=loss)) == code


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("loss", ["no", "yes"])
def test_an_answer_that_a_full_disk_does_not_take_is_none(loss: str, as_json: bool) -> None:
    answer = Answer(task=TaskAnswer(id="1", state="done"), loss=loss)
    with open("/dev/full", "w", encoding="utf-8") as full, redirect_stdout(full):
        with pytest.raises(CannotWorkError, match=f"loss: {loss}.*No space left"):
            diagnose._print(answer, as_json=as_json)
        # What is still in its buffer is to go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["text", "json"])
def test_an_error_that_a_full_disk_does_not_take_is_told_on_stderr(more: list[str]) -> None:
    words = ["diagnose", "--from", "a", "--to", "b", "--lab", "no-such-lab-of-the-unit-tests", *more]
    with open("/dev/full", "w", encoding="utf-8") as full:
        argv = [sys.executable, "-m", "vtrace.present.cli.main", *words]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 4
    (line,) = done.stderr.splitlines()
    assert line.startswith("vtrace: The lab 'no-such-lab-of-the-unit-tests' is not up")


def test_of_several_errors_at_once_ours_is_told() -> None:
    ours = CannotWorkError("no root")
    group = BaseExceptionGroup("g", [ValueError("x"), BaseExceptionGroup("h", [OSError("y"), ours])])
    assert first_leaf(group) is ours


def test_a_failure_of_our_own_is_no_loss(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ExceptionGroup("tasks", [KeyError(0)])

    monkeypatch.setattr("vtrace.embedded.find_cloud", fail)
    assert main(["diagnose", "--from", "a", "--to", "b", "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["error"]["why"] == "KeyError: 0"


@pytest.mark.parametrize(
    ("endpoint", "version"),
    [
        ("ns:pod:eth0", 4),
        ("10.0.0.1", 4),
        ("red/10.0.0.0/24", 4),
        ("fd00::1", 6),
        ("red/fd00::1", 6),
        ("red/fd00::/64", 6),
        ("fd00::/64", 6),
    ],
)
def test_the_ip_version_is_that_of_the_addresses(endpoint: str, version: int) -> None:
    arguments = parser().parse_args(["diagnose", "--from", endpoint, "--to", "vm"])
    assert diagnose._spec(arguments).traffic.ip_version == version
