"""What may be complained of after a case: by what the ends and the bridges showed, not by what VTrace says."""

from __future__ import annotations

from faults.running import IN_FLIGHT

from survival import events
from survival.cases import Case
from survival.trial import BOUND_S, LATER_PACKETS, RATE_PPS, TIMEOUT_S, Found, Told

CODES = {"no": 0, "yes": 1, "unknown": 3}
ERRORS = (2, 4)
HANGING = ("hang-ovs-vswitchd", "kill-ovsdb-server", "hang-ovsdb-server")
RESTORING_S = TIMEOUT_S + 15
ARMED_BEFORE_S = 6.0
"""For so long our entries have stood at most when the event comes."""
HELD_BACK = 4 * RATE_PPS
UNDER_WAY = RATE_PPS // 10
"""Between the removal of all entries that are not ovn-controller's and the end of coloring."""
RECOVERY_S = 2.5
"""By so much one run of an event may take longer than another."""


def may_lose(case: Case, found: Found, control: Found | None) -> int:
    """How many packets the event itself may cost, by what it cost with nothing of ours there."""
    if control is None or control.lost <= IN_FLIGHT:
        return IN_FLIGHT
    # The event may have lasted longer than when it was alone: by the packets that were sent meanwhile.
    longer = max(1.0, _sent_during(found) / max(1, _sent_during(control)))
    # A gateway's standby takes over after 2.5 to 8 s or not at all, with nothing of ours there.
    least = int(found.event_s * RATE_PPS) if case.place == "gateway" else 0
    # What hangs holds back as many packets however long it does, and loses all others.
    more = max(0, _sent_during(found) - _sent_during(control)) if case.event in HANGING else 0
    alone = max(int(control.lost * longer), control.lost + more, least)
    return alone + int(RECOVERY_S * RATE_PPS) + IN_FLIGHT


def _sent_during(found: Found) -> int:
    return found.marks.get("end", 0) - found.marks.get("event", 0)


def may_show_color(case: Case, found: Found) -> int:
    """Packets that may arrive with a color: the known exceptions of docs/limits.md.

    An ovn-controller that starts anew takes all entries of the last server away, and what is under way then keeps the
    color. Where the last server hangs, and goes on when its own restoring entries have timed out, that is what it held
    back. Without its ovsdb-server ovs-vswitchd forwards nothing either.
    """
    last = case.place in ("destination", "gateway")
    if last and case.event == "restart-ovn-controller":
        return UNDER_WAY
    return HELD_BACK if last and case.event in HANGING and found.event_s > RESTORING_S - ARMED_BEFORE_S else 0


def complaints(case: Case, found: Found, control: Found | None) -> list[str]:
    """All that was not as it has to be."""
    said = list(found.trouble) + (control.trouble if control else [])
    allowed = may_lose(case, found, control)
    if found.lost > allowed:
        alone = f"; alone {control.gaps}, {control.marks}" if control else ""
        said.append(f"{found.lost} packets were lost, not {allowed}: {found.gaps}, {found.marks}{alone}")
    if found.colored.total() > may_show_color(case, found):
        said.append(f"{found.colored.total()} packets showed a color: {dict(found.colored)}")
    if found.told is not None and not events.of(case).kills:
        said += about_answer(case, found.told, max(found.lost, found.lost_then))
    for later in found.later:
        said += about_later(later)
    return said


def about_answer(case: Case, told: Told, lost: int) -> list[str]:
    """What is wrong with the task's end."""
    said = []
    if "Traceback" in told.progress:
        said.append(f"a traceback: {told.progress[-1500:]}")
    # What is stopped till all time-outs are over takes as long; a program with a faked clock starts slowly.
    slow = events.of(case).hold == "expiry" or case.event.startswith("clock-")
    if told.took_s > TIMEOUT_S + BOUND_S and not slow:
        said.append(f"it took {told.took_s:.1f} s")
    if events.of(case).full:
        if told.exit_code not in ERRORS or "vtrace: " not in told.progress.splitlines()[-1]:
            said.append(f"exit code {told.exit_code} where nothing could be written: {told.progress[-300:]}")
        return said
    document = told.document
    if not document:
        return [*said, f"no JSON document, exit code {told.exit_code}: {told.out[:200]} {told.progress[-500:]}"]
    if "error" in document:
        if told.exit_code not in ERRORS or not document["error"]["what"]:
            said.append(f"exit code {told.exit_code} with {document['error']}")
        return said
    return [*said, *about_verdicts(told, lost)]


def about_verdicts(told: Told, lost: int) -> list[str]:
    """What is wrong with an answer, against what the ends saw."""
    document, said = told.document, []
    counts, loss = document["packets"], document["loss"]
    arrived = counts["delivered"] + counts["left_domain"]
    if told.exit_code != CODES[loss]:
        said.append(f"exit code {told.exit_code} with loss {loss}")
    if loss == "no" and not arrived:
        said.append("no loss, it says, without one packet that arrived")
    if loss == "yes" and lost <= IN_FLIGHT:
        said.append(f"loss, it says, of {lost} packets that were lost")
    if counts["dropped"] + counts["lost_between"] > lost + IN_FLIGHT:
        said.append(f"{counts} with {lost} packets that were lost")
    if counts["colored"] != arrived + counts["dropped"] + counts["lost_between"] + counts["evidence_missing"]:
        said.append(f"the counts do not add up: {counts}")
    for verdict in document["verdicts"]:
        why = verdict["why"] or {}
        if verdict["kind"] in ("dropped", "lost_between") and why.get("actor") == "tenant":
            said.append(f"it blames a tenant: {why['code']} {why.get('object')}")
    return said


def about_later(told: Told) -> list[str]:
    """What is wrong with a task after it all."""
    said = []
    counts = told.document.get("packets", {})
    if told.exit_code != 0 or counts.get("delivered", 0) + counts.get("left_domain", 0) < LATER_PACKETS - IN_FLIGHT:
        said.append(f"a later task: {told.text()}")
    elif told.document["cost"]["entries_left"]:
        said.append(f"a later task left {told.document['cost']['entries_left']} entries")
    return said
