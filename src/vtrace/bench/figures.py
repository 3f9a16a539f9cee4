"""What every benchmark's figures need: shares with their intervals, percentiles, the machine and the commit."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path


def interval(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    if not count:
        return 0.0, 1.0
    z, share = 1.96, right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return round(max(0.0, middle - half), 4), round(min(1.0, middle + half), 4)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of sorted values that at least this share of them do not exceed."""
    return values[max(0, math.ceil(share * len(values)) - 1)] if values else 0.0


def machine() -> str:
    """Cores, processor and kernel."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), platform.processor())
    return f"{os.cpu_count()} cores, {model}, Linux {platform.release()}"


def commit() -> str:
    """The commit of the working tree this runs from, or "unknown"."""
    words = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"
