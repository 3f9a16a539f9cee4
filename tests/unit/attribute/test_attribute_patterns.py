"""Persistent, transient, unclear: the rule of design.md ("The answer"), case by case."""

from __future__ import annotations

import pytest
from builders import PROPERTY
from hypothesis import given
from hypothesis import strategies as st

from vtrace.attribute.patterns import pattern, runs


def marks(text: str) -> list[bool]:
    """ "x" is a lost packet, "." a delivered one; "x3.20" is three and twenty."""
    found: list[bool] = []
    number = ""
    for sign in text + "|":
        if sign.isdecimal():
            number += sign
            continue
        if number:
            found += [found[-1]] * (int(number) - 1)
            number = ""
        if sign != "|":
            found.append(sign == "x")
    return found


@pytest.mark.parametrize(
    ("packets", "stands", "expected"),
    [
        ("", False, None),
        ("", True, None),
        (".100", False, None),
        (".100", True, None),
        ("x", False, "persistent"),
        ("x100", False, "persistent"),
        ("x.99", True, "persistent"),
        (".99x", True, "persistent"),
        ("x.x", False, "persistent"),
        ("x.50x.50", False, "persistent"),
        ("x.19", False, "unclear"),
        ("x.20", False, "transient"),
        ("x5.19", False, "unclear"),
        ("x5.20", False, "transient"),
        (".50x.19", False, "unclear"),
        (".50x.20", False, "transient"),
        (".99x", False, "unclear"),
        (".20x", False, "unclear"),
    ],
)
def test_rule(packets: str, stands: bool, expected: str | None) -> None:
    assert pattern(marks(packets), stands=stands) == expected


@pytest.mark.parametrize(("packets", "number"), [("", 0), (".", 0), ("x3", 1), ("x.x", 2), (".x2.x.", 2)])
def test_runs(packets: str, number: int) -> None:
    assert runs(marks(packets)) == number


@PROPERTY
@given(st.lists(st.booleans()), st.booleans())
def test_there_is_a_pattern_exactly_where_something_was_lost(lost: list[bool], stands: bool) -> None:
    assert (pattern(lost, stands=stands) is None) == (not any(lost))


@PROPERTY
@given(st.lists(st.booleans(), min_size=1))
def test_more_delivered_afterwards_never_makes_it_worse(lost: list[bool]) -> None:
    order = [None, "transient", "unclear", "persistent"]
    before = pattern(lost, stands=False)
    after = pattern([*lost, False], stands=False)
    assert order.index(after) <= order.index(before)
