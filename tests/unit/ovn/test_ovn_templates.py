"""Load balancer templates: rows as OVN's own tests write them (system-ovn.at, "load-balancer template")."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from vtrace.ovn.endpoints import address_and_port
from vtrace.ovn.templates import expanded, vips_of

HV1 = {"vip": "66.66.66.66", "vport1": "666", "backends1": "42.42.42.2:4242,42.42.42.3:4242", "vport3": "999"}


@pytest.mark.parametrize(
    ("vips", "chassis", "expected"),
    [
        ({"^vip:^vport1": "^backends1"}, [HV1], [("66.66.66.66:666", "42.42.42.2:4242,42.42.42.3:4242")]),
        ({"^vip:^vport3": "42.42.42.2:4242"}, [HV1], [("66.66.66.66:999", "42.42.42.2:4242")]),
        ({"^vip:^vport1": "^backends1"}, [HV1, {**HV1, "vip": "66.66.66.67"}, HV1], None),
        ({"^vip:^vport2": "^backends2"}, [HV1], []),
        ({"^vip:80": "^one:^port,^two:81"}, [{"vip": "1.1.1.1", "one": "2.2.2.2", "port": "8", "two": "3.3.3.3"}],
         [("1.1.1.1:80", "2.2.2.2:8,3.3.3.3:81")]),
        ({"^vip:^p": "^b"}, [{"vip": "6666::1", "p": "80", "b": "[4242::2]:4"}], [("[6666::1]:80", "[4242::2]:4")]),
        ({"^vip": "^b"}, [{"vip": "6666::1", "b": "4242::2"}], [("6666::1", "4242::2")]),
    ],
)  # fmt: skip
def test_expanded(vips: dict[str, str], chassis: list[dict[str, str]], expected: list[tuple[str, str]] | None) -> None:
    found = expanded(vips, chassis)
    if expected is None:
        assert [address_and_port(vip) for vip, _ in found] == [("66.66.66.66", 666), ("66.66.66.67", 666)]
    else:
        assert found == expected


class _Variables:
    """A northbound database that has only variables."""

    def __init__(self) -> None:
        self.asked = 0

    async def select(self, table: str, where: Any = (), columns: Any = ()) -> list[dict[str, Any]]:
        assert table == "Chassis_Template_Var"
        self.asked += 1
        return [{"variables": HV1}]


@pytest.mark.parametrize(("vip", "asked"), [("^vip:^vport1", 1), ("10.0.0.1:80", 0)])
def test_variables_are_read_for_templates_only(vip: str, asked: int) -> None:
    """Releases before 22.12 have no such table."""
    database = _Variables()
    row = {"vips": {vip: "42.42.42.2:4242"}}
    found = anyio.run(vips_of, database, row)
    assert database.asked == asked
    assert found == [("66.66.66.66:666" if asked else vip, "42.42.42.2:4242")]
