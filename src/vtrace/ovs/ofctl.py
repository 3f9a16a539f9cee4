"""Writes and reads the entries and meters of a bridge through the `ovs-ofctl` program (ovs-ofctl(8)).

OVS's own parser of flow text is trusted over one of ours. Each call is a short-lived OpenFlow 1.3 connection to
`<rundir>/<bridge>.mgmt`; OpenFlow 1.3 is what every deployment of OVN leaves enabled, it carries 64-bit cookies,
meters and (as ONF extension 230) bundles, and prints registers and metadata by number.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from vtrace.errors import CannotWorkError, ProtocolError
from vtrace.model.openflow import FlowEntry, InstalledEntry, MeterStat, TableId
from vtrace.ovs.flowtext import number, parse_dump
from vtrace.ovs.program import Finished, run_program
from vtrace.ovs.sockets import unreachable

OPENFLOW_VERSION = "OpenFlow13"
# 255 stands for all tables (OFPTT_ALL).
_TABLES = 255


class SwitchRefusedError(CannotWorkError):
    """ovs-vswitchd or ovs-ofctl refused what was asked; nothing of it was done."""


class OfCtl:
    """`ovs-ofctl` against one bridge.

    Args:
        mgmt_path: the bridge's management socket, `<rundir>/<bridge>.mgmt`.
        timeout_s: limit for each call; the program is killed after it.
    """

    def __init__(self, mgmt_path: str, timeout_s: float = 10.0) -> None:
        self._path = mgmt_path
        self._timeout_s = timeout_s

    @property
    def mgmt_path(self) -> str:
        return self._path

    async def add_entries(self, entries: Sequence[FlowEntry]) -> None:
        """Adds all entries in one atomic bundle, or none of them.

        Raises:
            SwitchRefusedError: one of the entries is not accepted; none was added.
        """
        if not entries:
            return
        lines = "".join(f"{entry.text()}\n" for entry in entries)
        await self._run("--bundle", "add-flows", args=("-",), stdin=lines)

    async def dump_entries(
        self, *, table: int | None = None, cookie: tuple[int, int] | None = None, match: str = ""
    ) -> tuple[InstalledEntry, ...]:
        """The entries of the bridge, all or those asked for.

        Args:
            table: only this table.
            cookie: only entries whose cookie equals `value` under `mask`.
            match: only entries at least as specific as this match (OpenFlow's loose matching).
        """
        return parse_dump(await self.dump_text(table=table, cookie=cookie, match=match))

    async def dump_text(
        self, *, table: int | None = None, cookie: tuple[int, int] | None = None, match: str = ""
    ) -> str:
        """The dump as `ovs-ofctl` prints it, for readers that need few of its lines; see `dump_entries`."""
        words = _selection(table, cookie, match)
        return (await self._run("--no-names", "dump-flows", args=(words,) if words else ())).stdout

    async def drops_fragments(self) -> bool:
        """Whether the bridge drops every fragment before it looks anything up."""
        return (await self._run("get-frags")).stdout.strip() == "drop"

    async def table_counts(self) -> dict[int, int]:
        """How many entries each table holds."""
        return parse_table_counts((await self._run("--no-names", "dump-tables")).stdout)

    async def port_counters(self) -> dict[str, dict[str, int]]:
        """Live counters by port number (or "LOCAL"): rx_packets, rx_dropped, tx_packets, tx_dropped, ….

        A counter that the port does not keep is left out.
        """
        return parse_port_counters((await self._run("--no-names", "dump-ports")).stdout)

    async def delete_entries(self, cookie: int, mask: int, *, table: int | None = None) -> None:
        """Deletes the entries whose cookie equals `cookie` under `mask`."""
        await self._run("del-flows", args=(_selection(table, (cookie, mask), ""),))

    async def delete_exactly(self, entries: Sequence[FlowEntry]) -> None:
        """Deletes these entries and no other, also where others have the same cookies."""
        places = (f"table={e.table},priority={e.priority},cookie=0x{e.cookie:x}/-1" for e in entries)
        matches = (f",{e.match}" if e.match else "" for e in entries)
        lines = "".join(f"delete_strict {place}{match}\n" for place, match in zip(places, matches, strict=True))
        if lines:
            await self._run("--bundle", "add-flows", args=("-",), stdin=lines)

    async def groups(self) -> tuple[int, ...]:
        """The ids of the bridge's groups."""
        done = await self._run("dump-groups")
        ids = []
        for line in done.stdout.splitlines():
            word = line.strip().split(",", 1)[0]
            if word.startswith("group_id="):
                ids.append(number(word.removeprefix("group_id=")))
        return tuple(ids)

    async def group_actions(self) -> dict[int, tuple[str, ...]]:
        """Of each group of the bridge the action lists of its buckets."""
        return parse_groups((await self._run("--no-names", "dump-groups")).stdout)

    async def meter_features(self) -> str:
        """What `meter-features` prints: the largest id, and what the meters can do."""
        return (await self._run("meter-features")).stdout

    async def max_meter(self) -> int:
        """The number of meters the bridge can hold (meter features); 0 if it has none."""
        return _labelled(await self.meter_features()).get("max_meter", 0)

    async def meters(self) -> tuple[MeterStat, ...]:
        """All meters of the bridge: configuration and counters."""
        configs = parse_meter_configs((await self._run("dump-meters")).stdout)
        counted = parse_meter_stats((await self._run("meter-stats")).stdout)
        return tuple(
            MeterStat(meter_id=meter_id, rate_pps=rate, burst_packets=burst, **counted.get(meter_id, {}))
            for meter_id, (rate, burst) in sorted(configs.items())
        )

    async def add_meter(self, meter_id: int, rate_pps: int, burst_packets: int) -> None:
        """Adds a meter that drops what is above a rate, and checks that the bridge has it.

        Raises:
            SwitchRefusedError: the id is taken or out of range, or the bridge has no such meter afterwards.
        """
        band = f"band=type=drop,rate={rate_pps},burst_size={burst_packets}"
        await self._run("add-meter", args=(f"meter={meter_id},pktps,burst,stats,{band}",))
        done = await self._run("dump-meters", args=(f"meter={meter_id}",))
        found = parse_meter_configs(done.stdout).get(meter_id)
        if found != (rate_pps, burst_packets):
            raise SwitchRefusedError(
                f"meter {meter_id} was not added as asked",
                where=self._path,
                why=f"the bridge reports (rate, burst) {found}",
            )

    async def delete_meter(self, meter_id: int) -> None:
        """Deletes a meter. One that is not there is no error (ovs-vswitchd ignores it)."""
        await self._run("del-meter", args=(f"meter={meter_id}",))

    async def _run(self, *command: str, args: Sequence[str] = (), stdin: str = "") -> Finished:
        argv = ["ovs-ofctl", "-O", OPENFLOW_VERSION, *command, f"unix:{self._path}", *args]
        done = await run_program(argv, stdin=stdin, timeout_s=self._timeout_s)
        if done.status != 0:
            raise self._error(command[-1], done)
        return done

    def _error(self, command: str, done: Finished) -> CannotWorkError:
        why = "; ".join(line.strip() for line in done.stderr.splitlines() if line.strip())[:1000]
        if not os.path.exists(self._path) or "Connection refused" in why:
            return unreachable(self._path, why)
        if "version negotiation failed" in why:
            return CannotWorkError(
                f"the bridge does not speak {OPENFLOW_VERSION}",
                where=self._path,
                why=why,
                next_step=f"Add {OPENFLOW_VERSION} to the bridge's protocols (ovs-vsctl set bridge … protocols=…)",
            )
        return SwitchRefusedError(f"ovs-ofctl {command} failed", where=self._path, why=why)


def _selection(table: int | None, cookie: tuple[int, int] | None, match: str) -> str:
    words = []
    if cookie is not None:
        words.append(f"cookie=0x{cookie[0]:x}/0x{cookie[1]:x}")
    if table is not None:
        words.append(f"table={TableId(table)}")
    if match:
        words.append(match)
    return ",".join(words)


def parse_groups(text: str) -> dict[int, tuple[str, ...]]:
    """`dump-groups`: group id to the action lists of its buckets."""
    groups: dict[int, tuple[str, ...]] = {}
    for line in text.splitlines():
        head, *buckets = line.strip().split("bucket=")
        if head.startswith("group_id="):
            group = number(head.removeprefix("group_id=").partition(",")[0])
            groups[group] = tuple(bucket.partition("actions=")[2].rstrip(",") for bucket in buckets)
    return groups


def parse_table_counts(text: str) -> dict[int, int]:
    """`dump-tables`: a table that is like the one before is printed as "ditto"."""
    counts: dict[int, int] = {}
    tables: range | None = None
    last = 0
    for line in text.splitlines():
        words = line.replace(",", " ").split()
        if words and words[0] in ("table", "tables") and len(words) > 1 and line.lstrip().startswith("table"):
            first, _, final = words[1].rstrip(":").partition("...")
            tables = range(number(first), number(final or first) + 1)
            if tables.stop > _TABLES:
                raise ProtocolError("a bridge says that it has more tables than there can be", why=line[:200])
            counts.update(dict.fromkeys(tables, last))
        elif words and words[0].startswith("active=") and tables is not None:
            last = number(words[0].removeprefix("active="))
            counts.update(dict.fromkeys(tables, last))
    return counts


# Names in `dump-ports` and in ovs-vswitchd.conf.db(5).
_COUNTERS = {"pkts": "packets", "bytes": "bytes", "drop": "dropped", "errs": "errors"}


def parse_port_counters(text: str) -> dict[str, dict[str, int]]:
    """`dump-ports`: port number to counters; "?" (not kept by the port) is left out."""
    ports: dict[str, dict[str, int]] = {}
    current: dict[str, int] | None = None
    for line in text.splitlines():
        head, colon, rest = line.strip().partition(": ")
        if colon and head.startswith("port "):
            current = ports[head.removeprefix("port ").strip()] = {}
        else:
            rest = line.strip()
        direction, _, counters = rest.partition(" ")
        if current is None or direction not in ("rx", "tx"):
            continue
        for word in counters.split(","):
            name, _, value = word.strip().partition("=")
            if name in _COUNTERS and value != "?":
                current[f"{direction}_{_COUNTERS[name]}"] = number(value)
    return ports


def parse_meter_configs(text: str) -> dict[int, tuple[int, int]]:
    """`dump-meters`: meter id to (rate, burst) of the first band. Meters in kbps have rate 0."""
    configs: dict[int, tuple[int, int]] = {}
    current: int | None = None
    in_packets = False
    for line in text.splitlines():
        words = line.split()
        if words and words[0].startswith("meter="):
            current = number(words[0].removeprefix("meter="))
            in_packets = "pktps" in words
            configs[current] = (0, 0)
        elif words and current is not None:
            band = dict(word.split("=", 1) for word in words if "=" in word)
            if in_packets and configs[current] == (0, 0):
                configs[current] = (number(band.get("rate", "0")), number(band.get("burst_size", "0")))
    return configs


def parse_meter_stats(text: str) -> dict[int, dict[str, int]]:
    """`meter-stats`: meter id to the counters, by their names in `MeterStat`."""
    stats: dict[int, dict[str, int]] = {}
    current: dict[str, int] | None = None
    for line in text.splitlines():
        words = _labelled(line)
        if "meter" in words:
            current = stats[words["meter"]] = {
                "packets_in": words.get("packet_in_count", 0),
                "in_use_by": words.get("flow_count", 0),
                "band_packets": 0,
            }
        elif current is not None and "packet_count" in words:
            current["band_packets"] += words["packet_count"]
    return stats


def _labelled(text: str) -> dict[str, int]:
    """Words of the form `name:number`; other words (durations, lists) are left out."""
    values: dict[str, int] = {}
    for word in text.split():
        name, found, value = word.partition(":")
        if not found or not value:
            continue
        try:
            values[name] = number(value)
        except ProtocolError:
            continue
    return values
