"""What an agent needs of root, and giving up the rest (capabilities(7), prctl(2)).

Started as root, it goes on as root without capabilities: it owns the sockets of Open vSwitch, and that is enough. Two
things take more, and only where they are so is something kept: an ovs-vswitchd in another network namespace (a lab's, a
container's), and files that belong to somebody else. Programs that it runs get no more than it has.

To be called before there are threads: the kernel keeps privileges for each of them.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from vtrace.ovs.namespace import is_elsewhere

# linux/capability.h.
CAPABILITIES = {"CAP_DAC_OVERRIDE": 1, "CAP_DAC_READ_SEARCH": 2, "CAP_SYS_PTRACE": 19, "CAP_SYS_ADMIN": 21}
_SETPCAP = 8
_LAST = "/proc/sys/kernel/cap_last_cap"
_VERSION_3 = 0x20080522
# linux/prctl.h.
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 24, 38, 47, 4
_SOCKETS = ("db.sock",)


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """A capability that is kept, and why."""

    capability: str
    why: str


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What a process has: the capabilities of all its threads together, and whether programs that it runs may get more.

    `bounding` are those that a program could have at most.
    """

    capabilities: tuple[str, ...]
    bounding: tuple[str, ...]
    no_new_privileges: bool


def needed(
    rundirs: Sequence[str], bridges: Iterable[str] = (), remotes: Iterable[str] = (), writes: Iterable[str] = ()
) -> tuple[Need, ...]:
    """What an agent of these run directories has to keep: usually nothing. To be asked with all privileges.

    Args:
        rundirs: of Open vSwitch; bridges: whose sockets it uses there.
        remotes: of databases, as `unix:PATH`; others take no privilege.
        writes: folders that files are written to.
    """
    found = []
    if elsewhere := [rundir for rundir in rundirs if _is_elsewhere(rundir)]:
        why = f"ovs-vswitchd of {elsewhere[0]} runs in another network namespace, whose queues and sockets are read"
        found += [Need(capability=name, why=why) for name in ("CAP_SYS_ADMIN", "CAP_SYS_PTRACE")]
    names = [*_SOCKETS, *(f"{bridge}.mgmt" for bridge in bridges)]
    ways = [(rundir, os.R_OK | os.W_OK | os.X_OK) for rundir in rundirs]
    ways += [(str(path), os.R_OK | os.W_OK) for r in rundirs for path in map(Path(r).joinpath, names) if path.exists()]
    ways += [(str(path), os.R_OK | os.W_OK) for r in rundirs for path in Path(r).glob("ovs-vswitchd.*.ctl")]
    ways += [(path, os.R_OK | os.W_OK) for path in _unix(remotes) if os.path.exists(path)]
    ways += [(folder, os.W_OK | os.X_OK) for folder in writes]
    reads = [(path, os.R_OK | os.X_OK) for path in (*_code(), str(Path.home())) if os.path.isdir(path)]
    with_all = _numbers("CapEff")
    _set(effective=0, permitted=_numbers("CapPrm"))
    try:
        refused = [path for path, mode in ways if not os.access(path, mode, effective_ids=True)]
        unread = [path for path, mode in reads if not os.access(path, mode, effective_ids=True)]
    finally:
        _set(effective=with_all, permitted=_numbers("CapPrm"))
    if refused:
        found.append(Need(capability="CAP_DAC_OVERRIDE", why=f"{refused[0]} belongs to somebody else"))
    elif unread:
        found.append(Need(capability="CAP_DAC_READ_SEARCH", why=f"{unread[0]} belongs to somebody else"))
    return tuple(found)


def drop(keep: Iterable[Need]) -> Held:
    """Gives up all capabilities but these, for this process and all that it will run; there is no way back.

    Returns:
        What is left.

    Raises:
        OSError: the kernel refused.
    """
    mask = sum(1 << CAPABILITIES[name] for name in {need.capability for need in keep}) & _numbers("CapPrm")
    if _numbers("CapEff") >> _SETPCAP & 1:
        for number in range(_last() + 1):
            if not mask >> number & 1:
                _prctl(_PR_CAPBSET_DROP, number)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _set(effective=mask, permitted=mask)
    return held()


def held(pid: int | str = "self") -> Held:
    """What a process has.

    Raises:
        OSError: there is none of that number.
    """
    threads = [_status(path) for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return Held(
        capabilities=tuple(_names(_all(threads, "CapPrm") | _all(threads, "CapEff") | _all(threads, "CapInh"))),
        bounding=tuple(_names(_all(threads, "CapBnd"))),
        no_new_privileges=all(int(thread["NoNewPrivs"]) for thread in threads),
    )


def told(keep: Sequence[Need], left: Held) -> str:
    """What is kept, in words."""
    if not left.capabilities:
        return "gave up all privileges but that of owning the sockets of Open vSwitch"
    reasons = dict.fromkeys(need.why for need in keep)
    return f"keeps {', '.join(left.capabilities)}: {'; '.join(reasons) or 'they could not be given up'}"


def _is_elsewhere(rundir: str) -> bool:
    try:
        return is_elsewhere(rundir)
    except (OSError, ValueError):
        # No ovs-vswitchd runs there, as its sockets will tell.
        return False


def _unix(remotes: Iterable[str]) -> Iterator[str]:
    for remote in (word for text in remotes for word in text.split(",")):
        if remote.startswith("unix:"):
            yield remote.removeprefix("unix:")


def _code() -> Iterator[str]:
    """Where modules may still be imported from."""
    yield str(Path(__file__).parent.parent)
    yield from (path for path in sys.path if path)


def _last() -> int:
    with open(_LAST, encoding="ascii") as file:
        return int(file.read())


def _status(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _numbers(name: str) -> int:
    return int(_status(Path("/proc/thread-self/status"))[name], 16)


def _all(threads: Iterable[dict[str, str]], name: str) -> int:
    found = 0
    for thread in threads:
        found |= int(thread[name], 16)
    return found


def _names(mask: int) -> Iterator[str]:
    known = {number: name for name, number in CAPABILITIES.items()}
    return (known.get(number, f"capability {number}") for number in range(64) if mask >> number & 1)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


_libc = ctypes.CDLL(None, use_errno=True)


def _set(*, effective: int, permitted: int) -> None:
    """capset(2) for this thread; nothing is inheritable."""
    words = [_Data(effective >> s & 0xFFFFFFFF, permitted >> s & 0xFFFFFFFF, 0) for s in (0, 32)]
    if _libc.capset(ctypes.byref(_Header(_VERSION_3, 0)), (_Data * 2)(*words)):
        raise OSError(ctypes.get_errno(), f"capset: {os.strerror(ctypes.get_errno())}")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        raise OSError(ctypes.get_errno(), f"prctl {option}: {os.strerror(ctypes.get_errno())}")
