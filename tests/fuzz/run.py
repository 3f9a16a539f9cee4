"""Runs the fuzz targets with atheris (libFuzzer), each in a process of its own: `make fuzz`.

    run.py [--seconds S] [NAME…]     all targets, or those named, for so long each

What breaks one is left in out/fuzz: put it into tests/fuzz/corpus/NAME when the reader is mended.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OUT = HERE.parents[1] / "out" / "fuzz"
SOURCES = HERE.parents[1] / "src"
MEMORY_MB = 4096
# For one input: a reader that takes longer hangs.
INPUT_S = 20
GROUPS = ("openflow", "text", "ovsdb", "record", "command")


def main() -> int:
    """Returns 1 if any target broke."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=int, default=60, help="for each target (default 60)")
    options.add_argument("--one", metavar="GROUP", help=argparse.SUPPRESS)
    options.add_argument("names", nargs="*", metavar="NAME")
    given = options.parse_args()
    try:
        importlib.import_module("atheris")
    except ImportError:
        version = ".".join(map(str, sys.version_info[:2]))
        print(f"fuzz: skipped: atheris can't be had here (Python {version}); `make unit` fuzzes with hypothesis")
        return 0
    if given.one:
        return _fuzz(given.one, given.names[0], given.seconds)
    wanted = [(group, target.name) for group in GROUPS for target in _targets(group)]
    unknown = set(given.names) - {name for _, name in wanted}
    if unknown:
        options.error(f"there is no target {', '.join(sorted(unknown))}")
    broken = []
    for group, name in wanted:
        if given.names and name not in given.names:
            continue
        command = [sys.executable, __file__, "--one", group, "--seconds", str(given.seconds), name]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        last = [line for line in done.stderr.splitlines() if line.startswith(("Done", "#"))][-1:]
        print(f"fuzz: {name}: {'broken' if done.returncode else 'held'} {' '.join(last)}", flush=True)
        if done.returncode:
            broken.append(name)
            print(done.stdout[-2000:], done.stderr[-6000:], flush=True)
    print(f"fuzz: {len(broken)} broken{': ' if broken else ''}{', '.join(broken)}")
    return 1 if broken else 0


def _targets(group: str) -> tuple[Any, ...]:
    found: tuple[Any, ...] = importlib.import_module(f"{group}_targets").TARGETS
    return found


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _compiled() -> Iterator[str]:
    """Modules that numba compiles: it knows nothing of what would be put into them."""
    for path in sorted((SOURCES / "vtrace").rglob("*.py")):
        if "vtrace.compiled import" in path.read_text(encoding="utf-8"):
            yield ".".join(path.relative_to(SOURCES).with_suffix("").parts)


def _fuzz(group: str, name: str, seconds: int) -> int:
    import atheris

    with atheris.instrument_imports(include=["vtrace"], exclude=list(_compiled()), enable_loader_override=False):
        found = _targets(group)
    target = next(one for one in found if one.name == name)
    own = OUT / name
    seeds = own / "seeds"
    seeds.mkdir(parents=True, exist_ok=True)
    (own / "corpus").mkdir(exist_ok=True)
    for number, data in enumerate(target.inputs()):
        (seeds / str(number)).write_bytes(data)
    words = own / "words"
    words.write_text("".join(f'"{_escaped(word[:64])}"\n' for word in target.words if word))
    arguments = [
        sys.argv[0],
        f"-max_total_time={seconds}",
        f"-max_len={target.most_bytes}",
        f"-timeout={INPUT_S}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-artifact_prefix={own}/",
        f"-dict={words}",
        "-print_final_stats=0",
        str(own / "corpus"),
        str(seeds),
    ]
    atheris.Setup(arguments, target.read)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    sys.exit(main())
