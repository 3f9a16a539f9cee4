"""What stands on a bridge for some logical datapaths, and whether the ovn-controller that keeps it is well."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from vtrace.collect.link import Standing
from vtrace.errors import CannotWorkError, ProtocolError
from vtrace.model.inspection import CtZone
from vtrace.ovs.flowtext import is_decimal
from vtrace.ovs.ofctl import OfCtl
from vtrace.ovs.unixctl import UnixctlError, call, ctl_path

_DAEMON = "ovn-controller"
# It answers at once unless it is stopped or computes; then its entries are as old as that.
_ANSWER_S = 1.0


async def standing(ofctl: OfCtl, rundir: str, datapaths: Sequence[int], ct_zone: int) -> Standing:
    """The entries of logical datapaths, by table, priority and cookie, the state of ovn-controller, and of a zone."""
    found: list[tuple[int, int, int]] = []
    for key in datapaths:
        found += [(e.table, e.priority, e.cookie) for e in await ofctl.dump_entries(match=f"metadata=0x{key:x}")]
    zones = await ct_limits(rundir, ct_zone) if ct_zone else ()
    return Standing(controller=await controller_state(rundir), entries=tuple(found), ct_zones=zones)


async def ct_limits(rundir: str, zone: int) -> tuple[CtZone, ...]:
    """How full a conntrack zone is; nothing where Open vSwitch does not tell."""
    try:
        return parse_limits(await call(ctl_path(rundir), "dpctl/ct-get-limits", f"zone={zone}", timeout_s=_ANSWER_S))
    except CannotWorkError:
        return ()


def parse_limits(text: str) -> tuple[CtZone, ...]:
    """Lines such as `zone=3,limit=10,count=7`; the line of the default limit is none of a zone."""
    words = (dict(w.partition("=")[::2] for w in line.strip().split(",")) for line in text.splitlines())
    return tuple(
        CtZone(zone=int(w["zone"]), limit=int(w["limit"]), count=int(w["count"]))
        for w in words
        if all(is_decimal(w.get(name, "")) for name in ("zone", "limit", "count"))
    )


async def controller_state(rundir: str) -> str:
    """What keeps ovn-controller from its work, in words; empty if nothing does."""
    place = await controller_place(rundir)
    if not place:
        return "is not running"
    try:
        path = ctl_path(place, _DAEMON)
        if (await call(path, "connection-status", timeout_s=_ANSWER_S)).strip() == "not connected":
            return "is not connected to the southbound database"
        if (await call(path, "debug/status", timeout_s=_ANSWER_S)).strip() == "paused":
            return "is paused"
    except (UnixctlError, ProtocolError):
        # One that does not know the question, of another version, does answer.
        return ""
    except CannotWorkError:
        return "does not answer"
    return ""


async def controller_place(rundir: str) -> str:
    """Where ovn-controller's sockets are: the run directory of Open vSwitch or OVN's own beside that (ovn-appctl(8)).

    Empty where it runs in neither.
    """
    for candidate in (rundir, str(anyio.Path(rundir).parent / "ovn")):
        if await anyio.Path(candidate, f"{_DAEMON}.pid").exists():
            return candidate
    return ""
