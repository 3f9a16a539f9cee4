"""OVSDB values in Python (RFC 7047, 5.1)."""

from __future__ import annotations

from typing import Any

import pytest

from vtrace.ovn.ovsdb import as_tuple, decode, map_of, uuid_ref

UUID = "36bef046-7da7-43a5-905a-c17899216fcb"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        (7, 7),
        (True, True),
        (1.5, 1.5),
        (["uuid", UUID], UUID),
        (["named-uuid", "row1"], "row1"),
        (["set", []], ()),
        (["set", ["a", "b"]], ("a", "b")),
        (["set", [["uuid", UUID]]], (UUID,)),
        (["map", []], {}),
        (["map", [["a", "b"], ["c", 1]]], {"a": "b", "c": 1}),
        (["map", [["a", ["uuid", UUID]]]], {"a": UUID}),
    ],
)
def test_decode(value: Any, expected: Any) -> None:
    assert decode(value) == expected


@pytest.mark.parametrize(("value", "expected"), [((), ()), (("a", "b"), ("a", "b")), ("a", ("a",)), (False, (False,))])
def test_a_set_of_one_is_sent_as_the_bare_value(value: Any, expected: tuple[Any, ...]) -> None:
    assert as_tuple(value) == expected


def test_values_of_conditions() -> None:
    assert uuid_ref(UUID) == ["uuid", UUID]
    assert map_of(router_port="lrp1") == ["map", [["router-port", "lrp1"]]]
