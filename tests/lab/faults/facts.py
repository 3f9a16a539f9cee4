"""What the injector has to know of a lab: read from it with the ordinary tools, through `vtrace lab exec`."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from faults.model import Pair

PROGRAM = (sys.executable, "-m", "vtrace.present.cli.main")
EXEC_TIMEOUT_S = 30
LOGICAL_INGRESS_TABLE = 8
"""Where OVN's logical ingress pipeline begins, in every release."""
PLACEMENTS: dict[str, tuple[str, str]] = {
    "switched-local": ("red-web1", "red-web2"),
    "switched-remote": ("red-web1", "red-web3"),
    "routed-local": ("red-web1", "red-db2"),
    "routed-remote": ("red-web1", "red-db1"),
}
"""The four ways two VMs of the default topology stand to each other."""


@dataclass(frozen=True)
class Facts:
    """A lab that is up."""

    lab: str

    def execute(self, node: str, *argv: str, check: bool = True, text: str | None = None) -> str:
        """What a command on a node prints."""
        done = subprocess.run(
            [*PROGRAM, "lab", "exec", "--lab", self.lab, node, "--", *argv],
            capture_output=True,
            text=True,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            timeout=EXEC_TIMEOUT_S,
            check=False,
        )
        assert not check or done.returncode == 0, f"{node}: {' '.join(argv)}: {done.returncode}\n{done.stderr}"
        return done.stdout

    @functools.cached_property
    def status(self) -> dict[str, Any]:
        """`vtrace lab status --json`."""
        argv = [*PROGRAM, "lab", "status", "--lab", self.lab, "--json"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=EXEC_TIMEOUT_S, check=True)
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def vm(self, name: str) -> dict[str, Any]:
        return next(dict(vm) for vm in self.status["vms"] if vm["name"] == name)

    def pair(self, placement: str, ip: Literal[4, 6], vpc: str = "red") -> Pair:
        """Two VMs; `vpc` blue has the same addresses in the places where it has VMs."""
        source, destination = (self.vm(name.replace("red", vpc)) for name in PLACEMENTS[placement])

        def addresses(vm: dict[str, Any]) -> list[str]:
            return [address for address in vm["addresses"] if (":" in address) == (ip == 6)]

        return Pair(
            source=source["name"],
            destination=destination["name"],
            source_switch=source["switch"],
            destination_switch=destination["switch"],
            source_server=source["server"],
            destination_server=destination["server"],
            src=addresses(source)[0],
            dst=addresses(destination)[0],
            alias=next(iter(addresses(destination)[1:]), None),
            ip=ip,
            vpc=vpc,
        )

    def bystander(self, pair: Pair) -> str:
        """A VM of the source's switch that is none of the two."""
        return next(name for name in ("red-web2", "red-web3") if name != pair.destination)

    @functools.cached_property
    def port_security(self) -> dict[str, str]:
        """Every port's port_security, as `lsp-set-port-security` takes it."""
        text = self.execute(
            "central", "ovn-nbctl", "--format=json", "--columns=name,port_security", "list", "Logical_Switch_Port"
        )
        rows = json.loads(text)["data"]
        return {name: value if isinstance(value, str) else " ".join(value[1]) for name, value in rows}

    @functools.cached_property
    def datapath_keys(self) -> dict[str, int]:
        """The metadata of every logical datapath."""
        text = self.execute(
            "central", "ovn-sbctl", "--format=json", "--columns=tunnel_key,external_ids", "list", "Datapath_Binding"
        )
        return {dict(ids[1])["name"]: key for key, ids in json.loads(text)["data"]}

    @functools.cache  # noqa: B019 (a lab's layout lives as long as the lab)
    def stage_table(self, server: str, stages: tuple[str, ...]) -> int:
        """The OpenFlow table of the first of these logical stages that this OVN has."""
        for stage in stages:
            rows = self.execute(
                "central",
                *("ovn-sbctl", "--bare", "--columns=_uuid", "find", "Logical_Flow"),
                f'external_ids:stage-name="{stage}"',
            ).split()
            if rows:
                return self._table_of(server, rows)
        raise LookupError(f"no such stage: {stages}")

    @functools.cache  # noqa: B019
    def output_table(self, server: str, port: str) -> int:
        """Where the bridge decides about a port: local output on its own server, remote output on others."""
        row = self.execute(
            "central", "ovn-sbctl", "--bare", "--columns=_uuid", "find", "Port_Binding", f"logical_port={port}"
        ).split()
        return self._table_of(server, row)

    def _table_of(self, server: str, uuids: Iterable[str]) -> int:
        """The lowest table but 0 with an entry whose cookie is the beginning of one of these rows' uuids."""
        cookies = {int(uuid[:8], 16) for uuid in uuids}
        tables = set()
        for line in self.execute(server, "ovs-ofctl", "--no-stats", "dump-flows", "br-int").splitlines():
            found = re.search(r"cookie=(0x[0-9a-f]+).*table=(\d+)", line)
            if found and int(found[1], 16) in cookies:
                tables.add(int(found[2]))
        if not tables - {0}:
            raise LookupError(f"no entry of {sorted(cookies)} on {server}")
        return min(tables - {0})
