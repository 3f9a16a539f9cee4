"""The order in which a case is put into its lab and taken back, without a lab."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from vtrace.bench import injecting
from vtrace.bench.drawing import Case, Mode
from vtrace.bench.fault import Command, Effect, Fault, Right, Traffic
from vtrace.bench.filling import Filled, Flow, Ready
from vtrace.bench.injecting import VoidError, injected
from vtrace.bench.way import Place, Way
from vtrace.lab.plan import make_state
from vtrace.lab.programs import ProgramError
from vtrace.lab.state import LabState
from vtrace.lab.topology import parse

ENDS = (("10.0.0.5", ""), ("10.0.0.6", ""))
PLACE = Place(role="source", server="s", vfd="v", vfd_kind="vswitch", src=ENDS[0], dst=ENDS[1])
WAY = Way(
    name="switched-local",
    kind="vpc",
    direction="forward",
    client="a",
    server="b",
    towards=("b", "b"),
    sources=ENDS[0],
    asked=(("a", "b"), ("a", "b")),
    places=(PLACE,),
)
RIGHT = Right(server="s", vfd="v", vfd_kind="vswitch")
SYNC = "central: ovn-nbctl --wait=hv --timeout=20 sync"


class Lab:
    """What was done to it, in order; packets arrive as long as nothing was injected."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.failing = ""
        self.acts = True

    def run_on(self, state: LabState, node: str, argv: Sequence[str]) -> str:
        text = f"{node}: {' '.join(argv)}"
        self.done.append(text)
        if self.failing and self.failing in text:
            raise ProgramError("a program failed", text)
        return ""

    def start(self, state: LabState, wish: object, *, flows: int) -> SimpleNamespace:
        self.done.append("traffic")
        return SimpleNamespace(id="t1")

    def stop(self, state: LabState, identifier: str) -> None:
        self.done.append("no traffic")

    @property
    def lossy(self) -> bool:
        return self.acts and any("inject" in text for text in self.done)


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    made = Lab()

    class Capture:
        def __init__(self, *_: object) -> None:
            pass

        def __enter__(self) -> Capture:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def read(self) -> None:
            pass

        def forget(self) -> None:
            pass

        def sent(self, flow: Flow) -> int:
            return 50

        def arrived(self, flow: Flow) -> int:
            return 0 if made.lossy else 50

    monkeypatch.setattr(injecting, "Capture", Capture)
    monkeypatch.setattr(injecting, "run_on", made.run_on)
    monkeypatch.setattr(injecting.traffic, "start", made.start)
    monkeypatch.setattr(injecting.traffic, "stop", made.stop)
    monkeypatch.setattr(injecting, "ACTS_S", 0.3)
    monkeypatch.setattr(injecting, "ARRIVES_S", 0.3)
    return made


@pytest.fixture
def state() -> LabState:
    text = '[[server]]\nname = "s"\nregion = "r"\n[[switch]]\nname = "v"\nvpc = "p"\nsubnets = ["10.0.0.0/24"]\n'
    for name, address in (("a", "10.0.0.5"), ("b", "10.0.0.6")):
        text += f'[[vm]]\nname = "{name}"\nswitch = "v"\nserver = "s"\naddresses = ["{address}"]\n'
    return make_state("x", parse(text, "two"), "two.toml", "2026-01-01T00:00:00Z")


def command(words: str, undo: str = "", on: str = "s") -> Command:
    return Command(on=on, run=tuple(words.split()), undo=(tuple(undo.split()),) if undo else ())


def ready(
    *inject: Command,
    prepare: tuple[Command, ...] = (),
    mode: Mode = "fault",
    new: bool = False,
    effect: Effect = "all lost",
) -> Ready:
    packets = Traffic(new=new)
    fault = Fault(
        name="f",
        text="",
        code="c",
        actor="tenant",
        anomaly="NIC exception",
        right=RIGHT,
        effect=effect,
        packets=packets,
    )
    near = (command("near", "un-near"),)
    filled = Filled(fault=fault, right=RIGHT, prepare=prepare, inject=inject, near=near, settled=None)
    return Ready(
        case=Case(number=0, seed=1, kind="vpc", batch=0, mode=mode, faults=("f",), busy=False),
        flows=(Flow(way=WAY, ip=4, proto="udp", port=2000),),
        faults=(filled,),
        prepare=(),
        size_bytes=100,
        rate_pps=100,
        packets=10,
        streams=1,
    )


def test_what_was_done_is_taken_back_in_the_opposite_order(lab: Lab, state: LabState) -> None:
    case = ready(command("inject 1", "undo 1"), command("inject 2", "undo 2"), prepare=(command("prepare", "undo 0"),))
    with injected(state, case):
        assert lab.done == ["s: prepare", "traffic", "s: inject 1", "s: inject 2"]
        lab.done.clear()
    assert lab.done == ["no traffic", "s: undo 2", "s: undo 1", "s: undo 0"]


def test_connections_that_a_fault_lost_do_not_reach_the_next_case(lab: Lab, state: LabState) -> None:
    case = ready(command("inject", "undo"))
    with injected(state, replace(case, flows=(replace(case.flows[0], proto="tcp"),))):
        lab.done.clear()
    end = " ".join(injecting.END_TCP)
    assert lab.done == ["no traffic", f"a: {end}", f"b: {end}", "s: undo"]


def test_a_kernel_that_can_not_end_connections_is_no_failure(lab: Lab, state: LabState) -> None:
    lab.failing = "ss "
    case = ready(command("inject", "undo"))
    with injected(state, replace(case, flows=(replace(case.flows[0], proto="tcp"),))):
        pass
    assert lab.done[-1] == "s: undo"


def test_the_servers_have_followed_before_anything_goes_on(lab: Lab, state: LabState) -> None:
    case = ready(command("inject", "undo", "central"), prepare=(command("prepare", "", "central"),))
    with injected(state, case):
        assert lab.done == ["central: prepare", SYNC, "traffic", "central: inject", SYNC]
        lab.done.clear()
    assert lab.done == ["no traffic", "central: undo", SYNC]


def test_nobody_waits_for_servers_beside_a_command_that_waits_itself(lab: Lab, state: LabState) -> None:
    with injected(state, ready(command("inject --wait=sb", "", "central"))):
        assert lab.done == ["traffic", "central: inject --wait=sb"]


def test_a_near_miss_and_new_traffic(lab: Lab, state: LabState) -> None:
    with injected(state, ready(command("inject"), mode="near-miss")):
        assert lab.done == ["traffic", "s: near"]
    assert lab.done[2:] == ["no traffic", "s: un-near"]
    lab.done.clear()
    with injected(state, ready(command("inject"), new=True)):
        assert lab.done == ["s: inject", "traffic"]


def test_a_fault_that_does_not_act_is_void_and_taken_back(lab: Lab, state: LabState) -> None:
    lab.acts = False
    with pytest.raises(VoidError, match="the fault to act"), injected(state, ready(command("inject", "undo"))):
        pytest.fail("it did not act")
    assert lab.done[-1] == "s: undo"


def test_a_command_that_fails_is_void_and_the_others_are_taken_back(lab: Lab, state: LabState) -> None:
    lab.failing = "inject 2"
    case = ready(command("inject 1", "undo 1"), command("inject 2", "undo 2"))
    with pytest.raises(VoidError, match="a command of the fault failed"), injected(state, case):
        pytest.fail("it failed")
    assert lab.done[-2:] == ["s: undo 2", "s: undo 1"]


def test_what_can_not_be_taken_back_makes_the_case_void(lab: Lab, state: LabState) -> None:
    lab.failing = "undo 2"
    case = ready(command("inject 1", "undo 1"), command("inject 2", "undo 2"))
    with pytest.raises(VoidError, match="could not be taken back"), injected(state, case):
        pass
    assert lab.done[-2:] == ["s: undo 2", "s: undo 1"]


@pytest.mark.parametrize(
    ("effect", "acts", "right"),
    [("all lost", True, True), ("none lost", True, False), ("none lost", False, True), ("some lost", True, False)],
)
def test_the_capture_is_held_against_the_effect(
    lab: Lab, state: LabState, effect: Effect, acts: bool, right: bool
) -> None:
    lab.acts = acts
    with injected(state, ready(command("inject"), effect=effect)) as (injector, capture):
        if right:
            injector.check(capture)
            return
        with pytest.raises(VoidError, match=f"{effect} was injected"):
            injector.check(capture)
