"""What came while a task ran, and says nothing of the packets before it."""

from __future__ import annotations

import pytest
from builders import case
from msgspec.structs import replace
from test_attribute_verdicts import handed_out, log_of, only

from vtrace.attribute.verdicts import attribute


@pytest.mark.parametrize(("blinded", "loss"), [({0}, "unknown"), ({1}, "no"), (set(), "no")])
def test_of_a_pair_whose_first_server_died_no_loss_is_no_answer(blinded: set[int], loss: str) -> None:
    found = attribute(case(log_of("." * 10).records, blinded=frozenset(blinded)))
    assert (found.loss, found.packets.delivered) == (loss, 10)


@pytest.mark.parametrize(
    ("healthy_before", "down_s", "kind"),
    [(True, 3, "evidence_missing"), (True, 1, "dropped"), (False, 3, "dropped")],
    ids=["long after", "soon", "never well"],
)
def test_a_port_that_goes_away_later_says_nothing_of_packets_long_before(
    healthy_before: bool, down_s: int, kind: str
) -> None:
    """Handed out within some milliseconds from the start; the first inspection, if any, showed nothing."""
    down = replace(handed_out(link_up=False), mono_ns=down_s * 1_000_000_000)
    # Farther away than the later one, so that the later one is the nearest.
    well = [replace(handed_out(link_up=True), mono_ns=-4_000_000_000)] if healthy_before else []
    log = log_of("....")
    assert only(attribute(case(log.records, [*well, down]))).kind == kind
