"""`lab break` and `lab heal`: put a fault in, remember how, take it out again."""

from __future__ import annotations

from pathlib import Path

import msgspec

from vtrace.errors import CannotWorkError, UsageError
from vtrace.lab import fault_steps, faults
from vtrace.lab import state as lab_state
from vtrace.lab.fault_steps import Command
from vtrace.lab.lock import locked
from vtrace.lab.programs import ProgramError, run_on
from vtrace.lab.state import LabState

SYNC_TIMEOUT_S = 20


class Broken(msgspec.Struct, frozen=True, kw_only=True):
    """A fault that is in: what was run, and what undoes it, in the order to run it."""

    id: str
    fault: str
    values: dict[str, str]
    done: tuple[Command, ...]
    undo: tuple[Command, ...]

    def text(self) -> str:
        """One line about it."""
        return f"{self.id}: {self.fault} " + " ".join(f"{key}={value}" for key, value in self.values.items())


def apply(state: LabState, name: str, given: list[str]) -> Broken:
    """Put a fault in and wait until every server acts on it.

    Args:
        state: of the lab.
        name: of the fault.
        given: its KEY=VALUE parameters.

    Raises:
        UsageError: there is no such fault, or a parameter is wrong; nothing was changed.
        ProgramError: a command failed; what the fault had done so far is undone.
    """
    fault = faults.find(name)
    if fault.needs_ovn and state.kind == "plain":
        known = " ".join(one.name for one in faults.FAULTS if not one.needs_ovn)
        raise UsageError(f"{name} needs OVN, and lab {state.name!r} has none", "lab break", f"there is {known}")
    values = faults.values_of(fault, given)
    with locked(state.name):
        identifier = f"f{max((int(broken.id[1:]) for broken in all_of(state)), default=0) + 1}"
        steps = fault_steps.STEPS[name](state, values)
        done: list[Command] = []
        undo: list[Command] = []
        try:
            for step in steps:
                command = _filled(step.do, identifier, "")
                printed = _run(state, command)
                done.append(command)
                undo.insert(0, _filled(step.undo, identifier, printed.partition("\n")[0].strip()))
                broken = Broken(id=identifier, fault=name, values=values, done=tuple(done), undo=tuple(undo))
                _write(state, broken)
        except BaseException:
            for command in undo:
                _run(state, command)
            _file(state, identifier).unlink(missing_ok=True)
            raise
    _sync(state, undo, broken.text())
    return broken


def heal(state: LabState, what: str | None) -> list[Broken]:
    """Take faults out: the one of that id, all of that name, or all there are.

    Raises:
        UsageError: there is no such fault in.
    """
    with locked(state.name):
        chosen = [broken for broken in all_of(state) if what in (None, broken.id, broken.fault)]
        if what is not None and not chosen:
            known = ", ".join(broken.text() for broken in all_of(state)) or "nothing is broken"
            raise UsageError(f"there is no fault {what!r} in", "lab heal", known)
        for broken in reversed(chosen):
            for command in broken.undo:
                _run(state, command)
            _file(state, broken.id).unlink()
    undone = [command for broken in chosen for command in broken.undo]
    _sync(state, undone, ", ".join(broken.text() for broken in chosen))
    return chosen


def all_of(state: LabState) -> list[Broken]:
    """The faults that are in, oldest first."""
    files = (lab_state.directory(state.name) / "faults").glob("*.json")
    found = [msgspec.json.decode(file.read_bytes(), type=Broken) for file in files]
    return sorted(found, key=lambda broken: int(broken.id[1:]))


def _run(state: LabState, command: Command) -> str:
    return run_on(state, command.node, command.argv)


def _filled(command: Command, identifier: str, printed: str) -> Command:
    """The command with its placeholders replaced."""
    argv = [part.replace("{table}", f"vtrace_lab_{identifier}").replace("{out}", printed) for part in command.argv]
    return Command(node=command.node, argv=tuple(argv))


def _sync(state: LabState, commands: list[Command], what: str) -> None:
    """Wait until every ovn-controller has done what the northbound database says now."""
    if not any(command.node == "central" for command in commands):
        return
    try:
        run_on(state, "central", ["ovn-nbctl", f"--timeout={SYNC_TIMEOUT_S}", "--wait=hv", "sync"])
    except ProgramError as error:
        raise CannotWorkError(
            f"the database has it, but not every ovn-controller has caught up in {SYNC_TIMEOUT_S} s",
            what,
            error.why,
            f"vtrace lab status --lab {state.name} names dead daemons",
        ) from error


def _file(state: LabState, identifier: str) -> Path:
    return lab_state.directory(state.name) / "faults" / f"{identifier}.json"


def _write(state: LabState, broken: Broken) -> None:
    path = _file(state, broken.id)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.encode(broken))
