"""Load balancers whose rows hold variables that each chassis has values for (ovn-nb(5), Chassis_Template_Var)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from vtrace.ovn.ovsdb import Database, Row

_VARIABLE = re.compile(r"\^([A-Za-z_.][A-Za-z0-9_.]*)")


async def vips_of(nb: Database, row: Row) -> list[tuple[str, str]]:
    """(VIP, backends) of a load balancer's row; where it is a template, those of every chassis, each once."""
    vips: Mapping[str, str] = row["vips"]
    if not any("^" in text for vip in vips.items() for text in vip):
        return sorted(vips.items())
    variables = await nb.select("Chassis_Template_Var", (), ("variables",))
    return expanded(vips, [chassis["variables"] for chassis in variables])


def expanded(vips: Mapping[str, str], chassis: Iterable[Mapping[str, str]]) -> list[tuple[str, str]]:
    """VIPs and backends with the values of each chassis; a chassis without a value has no such VIP."""
    found = []
    for values in chassis:
        for vip, backends in vips.items():
            ends = [_with_values(text, values) for text in backends.split(",")]
            pair = _with_values(vip, values), ",".join(ends)
            if "^" not in "".join(pair):
                found.append(pair)
    return sorted(set(found))


def _with_values(text: str, values: Mapping[str, str]) -> str:
    """A VIP, a backend, or a variable that stands for several; an IPv6 address before a port gets its brackets."""
    if not text.startswith("^"):
        return _VARIABLE.sub(lambda match: values.get(match[1], match[0]), text)
    address, colon, port = (_VARIABLE.sub(lambda m: values.get(m[1], m[0]), part) for part in text.partition(":"))
    if colon and address.count(":") > 1 and not address.startswith("["):
        address = f"[{address}]"
    return f"{address}{colon}{port}"
