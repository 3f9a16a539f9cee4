"""Which cases there are: an event, where it meets a task, and in which state of the task. A sample of them, or all."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

import msgspec
from faults import matrix
from faults.running import is_soak

DURING = ("ready", "coloring", "collecting")
STATES = (*DURING, "after")
"""Of a task: its claims stand; packets are colored; the last ones are waited for; it has given its answer."""
ACTS = ("kill", "stop", "hang", "restart")
"""kill -9 and started again after the answer; SIGSTOP for a while; SIGSTOP until after the answer; ended and started at
once."""
SERVER_DAEMONS = ("ovs-vswitchd", "ovsdb-server", "ovn-controller")
CENTRAL_DAEMONS = ("ovn-northd", "ovnnb_db", "ovnsb_db")
PLACES = ("source", "destination", "gateway")
SAMPLE_SIZE = 2


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One case.

    Attributes:
        event: what happens (`events.known`).
        place: where: a server of the task (source, destination, gateway), central, the analyzer's process, or the
            whole network.
        state: of the task, when it happens.
    """

    event: str
    place: str
    state: str

    @property
    def name(self) -> str:
        return f"{self.event}-{self.place}-{self.state}"


CORE = (
    Case(event="restart-ovs-vswitchd", place="gateway", state="coloring"),
    Case(event="hang-ovs-vswitchd", place="source", state="coloring"),
    Case(event="kill-ovn-controller", place="destination", state="coloring"),
    Case(event="hang-analyzer", place="analyzer", state="coloring"),
)
"""The most dangerous ones, always run."""
LONG = ("hang-", "kill-analyzer")
"""Events after which time-outs are waited for: the sample has none of them."""

KNOWN: dict[str, str] = {}
"""Cases that go wrong, and how (docs/limits.md): they are run, and reported, but fail nobody's change."""


def whole() -> Iterator[Case]:
    """Every case, the ones that can do most harm first."""
    for daemon, act, place in itertools.product(SERVER_DAEMONS, ACTS, PLACES):
        for state in STATES:
            if (act, state) != ("hang", "after"):  # after the answer there is nothing to outlast
                yield Case(event=f"{act}-{daemon}", place=place, state=state)
    for act, state in itertools.product(ACTS, DURING):
        yield Case(event=f"{act}-analyzer", place="analyzer", state=state)
    for place, state in itertools.product(PLACES, STATES):
        yield Case(event="server-disappears", place=place, state=state)
    for place, state in itertools.product(PLACES, ("ready", "coloring")):
        yield Case(event="restore-saved-entries", place=place, state=state)
    for state in STATES:
        yield Case(event="management-lost", place="network", state=state)
        yield Case(event="management-lost-to-analyzer", place="network", state=state)
    for daemon, act in itertools.product(CENTRAL_DAEMONS, ACTS):
        for state in STATES:
            if (act, state) != ("hang", "after"):
                yield Case(event=f"{act}-{daemon}", place="central", state=state)
    for place, state in itertools.product(("source", "destination"), ("collecting", "after")):
        # In the other states: changing/catalogue.py.
        yield Case(event="vm-moves", place=place, state=state)
    for event, state in itertools.product(("clock-forward", "clock-back"), DURING):
        yield Case(event=event, place="analyzer", state=state)
    for event in ("answer-to-full-disk", "records-to-full-disk"):
        yield Case(event=event, place="analyzer", state="coloring")
    for state in ("ready", "coloring"):
        yield Case(event="run-directory-full", place="network", state=state)


def chosen() -> Sequence[Case]:
    """The cases of this run."""
    every = list(whole())
    if is_soak():
        return every
    others = [case for case in every if case not in CORE and not case.event.startswith(LONG)]
    return [*CORE, *random.Random(matrix.seed()).sample(others, SAMPLE_SIZE)]
