"""Compiles the kernel, so that no later process has to wait for it: `python -m vtrace.reconstruct.warm`."""

from __future__ import annotations

from vtrace.model.record import LogRecord, Point
from vtrace.model.record_schema import to_table
from vtrace.reconstruct.live import hops_of
from vtrace.reconstruct.whole import reconstruct


def warm() -> None:
    """Reconstructs the smallest packet there is."""
    record = LogRecord(
        chassis="a", incarnation=1, seq=1, color=3, epoch=1, key=1, pair=0, task="t", point=Point.FIRST_HOP, datapath=1,
        proto=17, src="192.0.2.1", dst="192.0.2.2",
    )  # fmt: skip
    reconstruct(to_table([record]))
    hops_of([record])


if __name__ == "__main__":
    warm()
