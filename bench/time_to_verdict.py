"""Time to verdict of `vtrace diagnose` on live traffic: N = 100 packets at 100 packets/s, 20 runs.

    .venv/bin/python bench/time_to_verdict.py [--json FILE] [--runs 20] [--fault] [--lab NAME]

Makes a lab of its own unless --lab names one that is up. The time is from the start of the process to its end, so it
holds the start of Python; `verdict_*` are the same runs by `cost.time_to_verdict_s`. With --fault an ACL drops all.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from vtrace.bench.figures import commit, machine, percentile

PROGRAM = [sys.executable, "-m", "vtrace.present.cli.main"]
PACKETS = 100
RATE_PPS = 100
RUNS = 20
GOAL_P95_S = 3.0
TIMEOUT_S = 60
SOURCE, DESTINATION = "red-web1", "red-db1"
ACL = ("red-db", "to-lport", "1777", f'outport == "{DESTINATION}" && ip4')


def vtrace(*words: str) -> str:
    """What a `vtrace` command prints."""
    done = subprocess.run([*PROGRAM, *words], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode != 0:
        sys.exit(f"vtrace {' '.join(words)}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


def one_run(lab: str, expected: int) -> tuple[float, float]:
    """Seconds of one diagnosis: of the process, and as the answer itself says. Exits if the answer is wrong."""
    argv = [*PROGRAM, "diagnose", "--lab", lab, "--from", SOURCE, "--to", DESTINATION, "--json"]
    began = time.monotonic()
    done = subprocess.run(
        [*argv, "--packets", str(PACKETS)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    took_s = time.monotonic() - began
    if done.returncode != expected:
        sys.exit(f"exit {done.returncode}, expected {expected}\n{done.stdout}\n{done.stderr}")
    document: dict[str, Any] = json.loads(done.stdout)
    return took_s, float(document["cost"]["time_to_verdict_s"])


def measure(lab: str, runs: int, fault: bool) -> dict[str, float]:
    """All runs, one after the other, on traffic that does not stop between them."""
    nb = ("lab", "exec", "--lab", lab, "central", "--", "ovn-nbctl", "--wait=hv", "--timeout=20")
    words = ("--from", SOURCE, "--to", DESTINATION, "--proto", "udp", "--rate", str(RATE_PPS))
    traffic = vtrace("lab", "traffic", "start", "--lab", lab, *words).strip()
    if fault:
        vtrace(*nb, "acl-add", *ACL, "drop")
    found = []
    load = []
    try:
        for number in range(runs):
            found.append(one_run(lab, 1 if fault else 0))
            load.append(os.getloadavg()[0])
            print(f"{number + 1} of {runs}: {found[-1][0]:.2f} s (load {load[-1]:.1f})", file=sys.stderr)
    finally:
        if fault:
            vtrace(*nb, "acl-del", *ACL)
        vtrace("lab", "traffic", "stop", "--lab", lab, traffic)
    process, verdict = zip(*found, strict=True)
    return {
        "runs": runs,
        "time_to_verdict_median_s": round(statistics.median(process), 3),
        "time_to_verdict_p95_s": round(percentile(sorted(process), 0.95), 3),
        "time_to_verdict_min_s": round(min(process), 3),
        "time_to_verdict_max_s": round(max(process), 3),
        "verdict_median_s": round(statistics.median(verdict), 3),
        "verdict_p95_s": round(percentile(sorted(verdict), 0.95), 3),
        "load_average_max": round(max(load), 1),
    }


def main() -> int:
    """Measure, print, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--fault", action="store_true", help="with an ACL that drops all, instead of a healthy pair")
    parser.add_argument("--lab", metavar="NAME", help="a lab that is up (default: one of its own)")
    args = parser.parse_args()
    lab = args.lab or f"b{secrets.token_hex(3)}"
    if args.lab is None:
        vtrace("lab", "up", "--lab", lab)
    try:
        figures = measure(lab, args.runs, args.fault)
    finally:
        if args.lab is None:
            vtrace("lab", "down", "--lab", lab)
    for name, value in figures.items():
        print(f"{name:28} {value:g}")
    print(f"goal: p95 at most {GOAL_P95_S:g} s")
    document = {
        "name": "time_to_verdict",
        "figures": figures,
        "machine": machine(),
        "commit": commit(),
        "command": " ".join(["python", *sys.argv]),
    }
    if args.json is not None:
        args.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
