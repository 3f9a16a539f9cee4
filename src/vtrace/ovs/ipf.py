"""What the userspace datapath's conntrack made of fragments (`dpctl/ipf-get-status`, ovs-dpctl(8))."""

from __future__ import annotations

import re

from vtrace.ovs.unixctl import UnixctlError, call

_COUNTER = re.compile(r"^\s*(v[46]) frags (too small|overlapped|expired|purged): ([0-9]{1,20})\b", re.MULTILINE)
_SHORTEST = re.compile(r"^\s*min (v[46]) frag size: ([0-9]{1,20})\b", re.MULTILINE)
_WORDS = {"too small": "too short"}


async def fragment_counters(path: str) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """Fragments that were not taken, by family and why; and by family the shortest that are taken.

    Nothing where the datapath is not the userspace one.

    Args:
        path: control socket of ovs-vswitchd.
    """
    try:
        return parse_status(await call(path, "dpctl/ipf-get-status"))
    except UnixctlError:
        return {}, {}


def parse_status(text: str) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """Reads the text of `dpctl/ipf-get-status`."""
    counters: dict[str, dict[str, int]] = {}
    for family, name, value in _COUNTER.findall(text):
        counters.setdefault(family, {})[_WORDS.get(name, name)] = int(value)
    return counters, {family: int(value) for family, value in _SHORTEST.findall(text)}
