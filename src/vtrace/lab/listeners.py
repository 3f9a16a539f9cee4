"""Programs that answer as long as the lab is up (`listens`), and the workers that send and answer traffic."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from vtrace.lab.programs import run_on
from vtrace.lab.state import LabState

WORKER = Path(__file__).with_name("traffic_worker.py")
FOREVER_S = 10 * 365 * 86_400.0


def start_worker(state: LabState, node: str, options: dict[str, object]) -> int:
    """Start a worker on a node; it is ready when this returns. Its process id."""
    # -S -E: the worker needs none of our packages, and starts in half the time without them.
    return int(run_on(state, node, [sys.executable, "-S", "-E", str(WORKER), json.dumps(options)]))


def start_listeners(state: LabState, node: str) -> None:
    """Start the one program that answers for all a node listens at, on every address of it."""
    addresses = state.node(node).addresses
    listens = [(one.proto, text, one.port) for one in state.listeners if one.node == node for text in addresses]
    start_worker(state, node, {"role": "serve", "seconds": FOREVER_S, "listens": listens})


def listening_nodes(state: LabState) -> Iterable[str]:
    """The nodes that listen, each once."""
    return dict.fromkeys(one.node for one in state.listeners)
