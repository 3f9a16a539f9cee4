"""The format of a fault: a TOML file in `faults/`, decoded strictly. docs/benchmark.md explains every key.

Texts hold `{…}` fields that are filled in for each case: `{src.switch}`, `{match}`, or what `draw` draws.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec

from vtrace.errors import UsageError

KINDS = ("vpc", "slb", "internet", "datacenter", "vpcs")
Kind = Literal["vpc", "slb", "internet", "datacenter", "vpcs"]
Proto = Literal["udp", "tcp", "icmp"]
Actor = Literal["tenant", "provider", "physical", "guest", "unknown"]
Effect = Literal["all lost", "some lost", "none lost", "nothing sent"]
Trait = Literal[
    "central",
    "checked",
    "distributed",
    "gateway",
    "inward",
    "on router",
    "on switch",
    "outward",
    "shared",
    "vip",
    "watched",
]
"""Of the ways in `ways/`."""
Shape = Literal["local", "remote", "switched", "routed", "alias", "forward", "reply"]
Absence = Literal["unwatched", "direct", "unchecked", "unforced", "as sent", "one way"]
Need = Shape | Absence | Trait

# Achelous (SIGCOMM 2023), table 2: 234 anomalies that a large cloud saw in two months.
ANOMALIES = {
    "network misconfiguration": 90,
    "NIC exception": 45,
    "vSwitch overload": 27,
    "migration or release": 21,
    "middlebox overload": 15,
    "server resources": 12,
    "VM exception": 12,
    "physical bandwidth": 9,
    "hypervisor exception": 3,
}
Anomaly = Literal[
    "network misconfiguration",
    "NIC exception",
    "vSwitch overload",
    "migration or release",
    "middlebox overload",
    "server resources",
    "VM exception",
    "physical bandwidth",
    "hypervisor exception",
]


class Command(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An ordinary command on a node of the lab; `undo` are the commands there that take it back."""

    on: str
    run: tuple[str, ...]
    undo: tuple[tuple[str, ...], ...] = ()


class Draw(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value that is drawn, or looked up, for each case anew. One key alone, `on` and `of_server` aside.

    Attributes:
        between: a whole number from the first to the second.
        of: one of these.
        word: a name of that many letters.
        unused: an address that nobody has, of the subnet of `src` or `dst`.
        bystander: another VM of the same VPC: on the `switch` of src or dst, or on the `server` of one.
        table: the OpenFlow table of the first of these logical stages that this OVN has, on the server `on`.
        output: the OpenFlow table where the bridge of server `on` decides about this port's output.
        key: the tunnel key of a logical switch or router.
        query: the first line that a command prints on the node `on`, before anything is injected.
        text: other fields put together.
    """

    between: tuple[int, int] | None = None
    of: tuple[str | int, ...] | None = None
    word: int | None = None
    unused: Literal["src", "dst"] | None = None
    bystander: Literal["src switch", "dst switch", "src server", "dst server"] | None = None
    table: tuple[str, ...] | None = None
    output: str | None = None
    key: str | None = None
    query: tuple[str, ...] | None = None
    text: str | None = None
    on: str = "central"


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of a database, by the condition that `find` takes; looked up after the injection, or `before` it."""

    table: str
    find: str
    database: Literal["nb", "sb"] = "nb"
    before: bool = False


class Right(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The answer that is right."""

    kind: str = "dropped"
    loss: Literal["yes", "no", "unknown"] = "yes"
    server: str
    vfd: str
    vfd_kind: str
    next_server: str = ""
    direction: Literal["", "forward", "reply"] = ""
    row: Row | None = None
    object: str = ""


class Traffic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the case's packets have to be, where the fault demands it; else all is drawn."""

    size_bytes: tuple[int, int] = (20, 1100)
    rate_pps: tuple[int, int] = (50, 200)
    packets: tuple[int, int] = (30, 60)
    flows: tuple[int, int] = (1, 4)
    to_alias: bool = False
    from_alias: bool = False
    new: bool = False


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fault.

    Attributes:
        text: what goes wrong, in a sentence.
        code, actor: of the right answer.
        anomaly: which row of the table of a real cloud's anomalies it belongs to, so how often it is drawn.
        traffic: kinds of traffic it can be injected into.
        at: roles of the places (docs/benchmark.md) it can be at; `{at.…}` is the one drawn.
        needs: what the pair has to be.
        effect: what it does to the packets of the pair.
        by_name: the task names the VMs by their ports, since it makes an address ambiguous.
        alone: it acts on more than the pair's own packets, so no second fault is injected beside it.
        prepare: commands before the traffic starts, for the fault and its near-miss alike.
        near: values that make the injected commands miss; or `near_inject` other commands.
        settled: a command that ends with success once the fault acts; tried until then.
    """

    text: str
    code: str
    actor: Actor
    anomaly: Anomaly
    right: Right
    inject: tuple[Command, ...] = ()
    traffic: tuple[Kind, ...] = ("vpc",)
    at: tuple[str, ...] = ("source",)
    needs: tuple[Need, ...] = ()
    protocols: tuple[Proto, ...] = ("udp", "tcp", "icmp")
    versions: tuple[Literal[4, 6], ...] = (4, 6)
    effect: Effect = "all lost"
    by_name: bool = False
    alone: bool = False
    draw: dict[str, Draw] = {}
    prepare: tuple[Command, ...] = ()
    near: dict[str, str] = {}
    near_inject: tuple[Command, ...] = ()
    packets: Traffic = Traffic()
    settled: Command | None = None
    name: str = ""

    @property
    def has_near_miss(self) -> bool:
        """Whether it has a near-miss."""
        return bool(self.near or self.near_inject)


def read(text: str, name: str) -> Fault:
    """Decodes one file.

    Raises:
        UsageError: naming the file and the key.
    """
    try:
        fault = msgspec.convert({**tomllib.loads(text), "name": name}, Fault)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise UsageError(
            "the fault can't be read", f"{name}.toml", str(error), "docs/benchmark.md has the keys"
        ) from error
    for key, draw in fault.draw.items():
        given = [field for field in draw.__struct_fields__ if field != "on" and getattr(draw, field) is not None]
        if len(given) != 1:
            raise UsageError(
                "a draw has one key", f"{name}.toml: draw.{key}", f"it has {len(given)}: {' '.join(given)}"
            )
    return fault


def catalogue(directory: Path | None = None) -> tuple[Fault, ...]:
    """All faults that ship, or those of a directory, by name.

    Raises:
        UsageError: a file can't be read.
    """
    place = directory or resources.files("vtrace.bench") / "faults"
    files = sorted((f for f in place.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    return tuple(read(file.read_text(), file.name.removesuffix(".toml")) for file in files)
