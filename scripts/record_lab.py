#!/usr/bin/env python3
"""Takes the records of tests/unit/synthetic/data from real labs: scripts/record_lab.py FILE (root; four minutes).

One Parquet file in the flat form, with one more column, `sample`: way, protocol and IP version.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

VTRACE = (str(Path(__file__).parent.parent / ".venv/bin/vtrace"),)
LAB = ("--lab", "recorded")
PACKETS = "12"
# Topology -> what is recorded on it: name, --from and --to of the traffic, --from and --to of the task, IPv6 of both.
WAYS: dict[str, tuple[tuple[str, str, str, str, str], ...]] = {
    "": (
        ("switched-local", "red-web1", "red-web2", "red-web1", "red-web2"),
        ("switched-remote", "red-web1", "red-web3", "red-web1", "red-web3"),
        ("routed-local", "red-web1", "red-db2", "red-web1", "red-db2"),
        ("routed-remote", "red-web1", "red-db1", "red-web1", "red-db1"),
    ),
    "slb": (("slb", "red-client1", "10.1.9.1|fd00:1:9::1", "red-client1", "10.1.9.1|fd00:1:9::1"),),
    "internet": (
        ("central", "red-web1", "198.51.100.10|2001:db8:100::10", "red-web1", "198.51.100.10|2001:db8:100::10"),
        ("distributed", "red-web2", "198.51.100.10|2001:db8:100::10", "red-web2", "198.51.100.10|2001:db8:100::10"),
        ("shared", "red-web3", "198.51.100.10|2001:db8:100::10", "red-web3", "198.51.100.10|2001:db8:100::10"),
    ),
    "datacenter": (("datacenter", "red-web1", "10.50.1.10|fd00:50:1::10", "red-web1", "10.50.1.10|fd00:50:1::10"),),
    "vpc-vpc": (("vpc-vpc", "red-web1", "blue-web2", "red-web1", "blue-web2"),),
}


def run(*words: str) -> None:
    done = subprocess.run([*VTRACE, *words], capture_output=True, text=True, timeout=90)
    if done.returncode not in (0, 1):
        print(f"{' '.join(words)}: exit {done.returncode}: {done.stderr[-600:]}", file=sys.stderr)


def of(text: str, version: int) -> str:
    four, _, six = text.partition("|")
    return six if six and version == 6 else four


def record(folder: Path) -> None:
    for topology, ways in WAYS.items():
        run("lab", "up", *filter(None, [topology]), *LAB)
        try:
            for way, version, proto in itertools.product(ways, (4, 6), ("udp", "tcp", "icmp")):
                name, start, end, source, destination = (of(text, version) for text in way)
                if topology == "slb" and proto == "icmp":
                    continue
                port = [] if proto == "icmp" else ["--dport", "5353" if topology == "slb" and proto == "udp" else "80"]
                run("lab", "traffic", "start", *LAB, "--from", start, "--to", end, "--proto", proto, *port,
                    "--ip", str(version), "--rate", "50", "--flows", "3")  # fmt: skip
                run("diagnose", *LAB, "--from", source, "--to", destination, "--proto", proto, "--ip", str(version),
                    "--direction", "both", "--packets", PACKETS, "--timeout", "8",
                    "--records", str(folder / f"{name}-{proto}{version}.parquet"))  # fmt: skip
                run("lab", "traffic", "stop", *LAB)
        finally:
            run("lab", "down", *LAB)


def main(file: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        record(Path(folder))
        tables = []
        for path in sorted(Path(folder).glob("*.parquet")):
            table = pq.read_table(path)
            tables.append(table.append_column("sample", pa.array([path.stem] * table.num_rows, pa.string())))
    merged = pa.concat_tables([t.replace_schema_metadata({"vtrace_record_version": "2"}) for t in tables])
    pq.write_table(merged, file, compression="zstd")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
