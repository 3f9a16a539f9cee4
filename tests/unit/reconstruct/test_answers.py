"""From records to answers for each task and pair: at once and in micro-batches, with records lost, late, repeated."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import msgspec
import pyarrow as pa
import pytest
from builders import DB, GW, HV1, HV2, PROPERTY, R1, WEB, WEB1, Recorder
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from vtrace.attribute import patterns
from vtrace.collect import blobs
from vtrace.collect.blobs import compact
from vtrace.model.record import EvidenceRecord, LogRecord, Point, StreamEnd
from vtrace.model.record_schema import to_table
from vtrace.reconstruct.answers import TRANSIENT_AFTER, Answers, PairAnswer, answers
from vtrace.reconstruct.gathering import Gathered
from vtrace.reconstruct.incremental import Incremental
from vtrace.reconstruct.parts import part_of
from vtrace.reconstruct.streams import Streams

S = 1_000_000_000


class Cloud(Recorder):
    """Packets that take their time: what became of each is written down beside its records."""

    def __init__(self) -> None:
        super().__init__()
        self.truth: dict[int, str] = {}
        self._now_ns: dict[str, int] = defaultdict(int)

    def write(self, chassis: str, point: Point, datapath: int, key: int, **fields: object) -> LogRecord:
        made = super().write(chassis, point, datapath, key, **fields)
        # Each chassis's clock has an origin of its own, and its packets come 10 ms apart.
        origin = {HV1: 5 * S, HV2: 9000 * S, GW: 77 * S}[chassis]
        self._now_ns[chassis] = max(self._now_ns[chassis] + 50_000, key * 10_000_000)
        self.records[-1] = replace(made, mono_ns=origin + self._now_ns[chassis])
        return self.records[-1]

    def walk(self, kind: str, key: int, pair: int) -> None:
        """One packet of a pair of its own, or of a pair that is given."""
        before = len(self.records)
        way, _, hops = kind.partition(" ")
        {"switched": self.switched, "routed": self.routed, "hairpin": self.hairpin}[way](key, pair)
        made = self.records[before:]
        if hops:
            kept = min(int(hops), len(made) - 1)
            for record in made[kept:]:
                self._seq[record.chassis] -= 1
            del self.records[before + kept :]
        last = self.records[-1]
        if last.point == Point.EGRESS:
            self.truth[key] = "delivered"
        else:
            self.truth[key] = "lost_between" if last.point == Point.REMOTE_OUTPUT else "dropped"

    @property
    def ends(self) -> list[StreamEnd]:
        return [
            StreamEnd(chassis=chassis, incarnation=1, color=self.color, epoch=self.epoch, written=written)
            for chassis, written in self._seq.items()
        ]


KINDS = ["switched", "routed", "hairpin", "switched 1", "switched 2", "switched 3", "routed 2", "routed 4", "hairpin 3"]


def cloud(kinds: Sequence[str], *, pairs: bool = True) -> Cloud:
    made = Cloud()
    for key, kind in enumerate(kinds, start=1):
        made.walk(kind, key, key if pairs else 0)
    return made


def at_once(
    records: Iterable[LogRecord], ends: Iterable[StreamEnd] = (), evidence: Iterable[EvidenceRecord] = ()
) -> Answers:
    batch = compact(to_table(records))
    streams, gathered = Streams(ends, records=batch.num_rows), Gathered()
    part = part_of([batch])
    columns = part.prepared.columns
    numbers = streams.numbers(part.prepared.places)
    streams.reach(numbers, columns.place, columns.seq)
    streams.widen(streams.mark(numbers, columns.place, columns.seq, columns.mono_ns)[1])
    gathered.add(part)
    return answers(gathered, streams, evidence)


def of_pair(found: Answers, pair: int = 0) -> PairAnswer:
    (task,) = found.tasks
    (one,) = [p for p in task.pairs if p.pair == pair]
    return one


def outcomes(found: Answers) -> dict[int, str]:
    """What is said of each pair's only packet."""
    names = ("delivered", "dropped", "lost_between", "left_domain", "evidence_missing")
    return {p.pair: next(n for n in names if getattr(p, n)) for task in found.tasks for p in task.pairs}


# --- by hand ----------------------------------------------------------------------------------------------


def test_nothing() -> None:
    found = at_once([])
    assert (found.records, found.packets, found.tasks) == (0, 0, ())


def test_counts_places_and_delays() -> None:
    made = cloud(["routed"] * 30 + ["routed 2"] * 10, pairs=False)
    found = of_pair(at_once(made.records, made.ends))
    assert (found.packets, found.delivered, found.dropped, found.evidence_missing) == (40, 30, 10, 0)
    assert (found.loss, found.loss_ratio, found.pattern) == ("unknown", 0.25, "unclear")
    (loss,) = found.losses
    assert (loss.kind, loss.packets, loss.where.chassis, loss.where.point) == ("dropped", 10, HV1, "logical_egress")
    whole, cut = found.paths
    assert [(h.chassis, h.point, h.datapath) for h in whole.hops] == [
        (HV1, "first_hop", WEB),
        (HV1, "logical_egress", WEB),
        (HV1, "logical_egress", R1),
        (HV1, "remote_output", DB),
        (HV2, "ingress", DB),
        (HV2, "egress", DB),
    ]
    assert (whole.packets, cut.packets, len(cut.hops)) == (30, 10, 2)
    assert [h.delay_ns for h in whole.hops] == [None, *[(50_000,) * 3] * 3, None, (50_000,) * 3]


@pytest.mark.parametrize(
    ("fates", "loss", "pattern"),
    [
        ("." * 30, "no", None),
        ("-" * 5, "yes", "persistent"),
        ("-" + "." * 25, "no", "transient"),
        ("." * 25 + "-", "unknown", "unclear"),
        (".-.-" + "." * 30, "yes", "persistent"),
    ],
)
def test_patterns(fates: str, loss: str, pattern: str | None) -> None:
    made = cloud(["switched" if fate == "." else "switched 2" for fate in fates], pairs=False)
    found = of_pair(at_once(made.records, made.ends))
    assert (found.loss, found.pattern) == (loss, pattern)


@pytest.mark.parametrize(
    ("fates", "pattern"),
    [
        ({HV1: "." * 30, GW: "-" * 10}, "unclear"),
        ({HV1: "-" * 10, GW: "." * 30}, "unclear"),
        ({HV1: "." * 30, GW: "-" * 10 + "." * 20}, "transient"),
        ({HV1: "." * 30, GW: "-.-"}, "persistent"),
        ({HV1: ".-" + "." * 20, GW: ".-" + "." * 20}, "transient"),
    ],
    ids=str,
)
def test_of_two_servers_none_came_in_first(fates: dict[str, str], pattern: str) -> None:
    made = Cloud()
    for chassis, marks in fates.items():
        for number, fate in enumerate(marks):
            key = number + 1 + 1000 * (chassis == GW)
            made.write(chassis, Point.FIRST_HOP, WEB, key, pair=0, in_key=WEB1, ttl=64)
            if fate == ".":
                made.sent(key, chassis)
                made.came(key, sender=chassis)
                made.out(key)
    assert of_pair(at_once(made.records, made.ends)).pattern == pattern


def test_a_transient_loss_is_what_it_is_for_a_diagnosis() -> None:
    assert TRANSIENT_AFTER == patterns.TRANSIENT_AFTER


def test_what_a_chassis_said_of_the_flow_is_the_reason() -> None:
    made = cloud(["switched 3"] * 3, pairs=False)
    said = EvidenceRecord(
        task="t1", pair=0, chassis=HV2, wall_ns=1, mono_ns=1, outcome="drop", code="acl_drop", object_type="ACL"
    )
    nothing = replace(said, code="", mono_ns=2)
    elsewhere = replace(said, chassis=HV1, code="no_route")
    (loss,) = of_pair(at_once(made.records, made.ends, [said, nothing, elsewhere])).losses
    assert loss.why is not None
    assert (loss.why.code, loss.why.object_type) == ("acl_drop", "ACL")


def test_sizes_that_are_lost() -> None:
    made = Cloud()
    for key in range(1, 41):
        made.walk("switched" if key % 2 else "switched 2", key, 0)
        size = 100 + key if key % 2 else 1400 + key
        made.records = [replace(r, length_bytes=size) if r.key == key else r for r in made.records]
    (told,) = [d for d in of_pair(at_once(made.records, made.ends)).contrast if d.field == "size_bytes"]
    assert (told.lost, told.delivered) == (("1402",), ("139",))


def test_values_that_are_lost_of_very_many_packets() -> None:
    made = Cloud()
    for key in range(1, 6001):
        made.walk("switched" if key % 2 else "switched 2", key, 0)
    made.records = [replace(r, sport=7 + r.key % 2) for r in made.records]
    (told,) = of_pair(at_once(made.records, made.ends)).contrast
    assert (told.field, told.lost, told.delivered) == ("source_port", ("7",), ("8",))


def test_a_record_that_is_missing_behind_the_last_leaves_the_packet_open() -> None:
    made = cloud(["switched"] * 5)
    lost = [r for r in made.records if not (r.key == 3 and r.point == Point.EGRESS)]
    found = at_once(lost, made.ends)
    assert outcomes(found) == {1: "delivered", 2: "delivered", 3: "evidence_missing", 4: "delivered", 5: "delivered"}
    assert found.records_missing == 1
    (stream,) = found.incomplete
    assert (stream.chassis, stream.written, stream.missing) == (HV2, 10, 1)


def test_a_hole_long_before_explains_nothing() -> None:
    made = cloud(["switched"] * 50 + ["switched 3"])
    lost = [r for r in made.records if not (r.key == 3 and r.point == Point.EGRESS)]
    assert outcomes(at_once(lost, made.ends))[51] == "dropped"


def test_records_at_the_end_that_nobody_has_are_missing_only_if_their_number_is_known() -> None:
    made = cloud(["switched"] * 5)
    lost = [r for r in made.records if r.key < 5 or r.chassis == HV1]
    assert outcomes(at_once(lost, made.ends))[5] == "evidence_missing"
    assert outcomes(at_once(lost))[5] == "lost_between"


def test_what_was_sent_to_a_server_where_nobody_looks() -> None:
    made = cloud(["switched 2"] * 5)
    assert {e.chassis: e.written for e in made.ends} == {HV1: 10, HV2: 0}
    assert set(outcomes(at_once(made.records, made.ends)).values()) == {"lost_between"}
    alone = [e for e in made.ends if e.chassis == HV1]
    assert set(outcomes(at_once(made.records, alone)).values()) == {"evidence_missing"}


def test_an_agent_that_was_started_anew() -> None:
    """Its numbers begin again, and what it missed meanwhile has none."""
    made = cloud(["switched"] * 10)
    kept = [r for r in made.records if r.chassis == HV1 or r.key not in (5, 6)]
    numbers: Counter[int] = Counter()
    again = []
    for r in kept:
        if r.chassis == HV2:
            incarnation = 1 if r.key < 5 else 2
            numbers[incarnation] += 1
            r = replace(r, incarnation=incarnation, seq=numbers[incarnation])
        again.append(r)
    found = outcomes(at_once(again))
    assert found == {**dict.fromkeys(range(1, 11), "delivered"), 5: "evidence_missing", 6: "evidence_missing"}


def test_a_stream_that_claims_what_cannot_be_is_not_believed() -> None:
    made = cloud(["switched", "switched 3"])
    liar = replace(next(e for e in made.ends if e.chassis == HV2), written=1 << 60)
    found = at_once(made.records, [e for e in made.ends if e.chassis == HV1] + [liar])
    assert outcomes(found) == {1: "delivered", 2: "evidence_missing"}
    assert [s.missing for s in found.incomplete] == [-1]
    lies = [replace(r, seq=1 << 60) if r.chassis == HV2 and r.point == Point.INGRESS else r for r in made.records]
    assert outcomes(at_once(lies)) == {1: "delivered", 2: "evidence_missing"}


def test_tasks_never_mix() -> None:
    one, two = Cloud(), Cloud()
    two.task, two.epoch = "t2", 2
    for key in range(1, 21):
        one.walk("switched", key, 0)
        two.walk("switched 2", key, 0)
    found = at_once([*one.records, *[replace(r, seq=r.seq) for r in two.records]], [*one.ends, *two.ends])
    assert [(t.task, t.pairs[0].packets, t.pairs[0].loss) for t in found.tasks] == [("t1", 20, "no"), ("t2", 20, "yes")]


# --- what holds for any records ---------------------------------------------------------------------------


MANY = st.lists(st.sampled_from(KINDS), min_size=1, max_size=25)


@PROPERTY
@given(kinds=MANY, seed=st.integers(0, 1 << 30), repeated=st.integers(0, 20))
def test_order_and_repetition_change_nothing(kinds: list[str], seed: int, repeated: int) -> None:
    made, draw = cloud(kinds), random.Random(seed)
    mixed = [*made.records, *(draw.choice(made.records) for _ in range(repeated))]
    draw.shuffle(mixed)
    found = at_once(mixed, made.ends)
    assert (found.records, found.repeated) == (len(mixed), repeated)
    assert msgspec.structs.replace(found, records=0, repeated=0) == msgspec.structs.replace(
        at_once(made.records, made.ends), records=0, repeated=0
    )


@PROPERTY
@given(kinds=MANY)
def test_with_all_records_the_truth_is_told(kinds: list[str]) -> None:
    made = cloud(kinds)
    there = [replace(made.ends[0], chassis=name, written=0) for name in {HV1, HV2, GW} - {e.chassis for e in made.ends}]
    assert outcomes(at_once(made.records, [*made.ends, *there])) == made.truth


@PROPERTY
@given(kinds=MANY, data=st.data())
def test_losing_records_invents_no_loss(kinds: list[str], data: st.DataObject) -> None:
    made = cloud(kinds)
    share = data.draw(st.sampled_from([0.02, 0.1, 0.5, 0.9]))
    draw = random.Random(data.draw(st.integers(0, 1 << 30)))
    kept = [r for r in made.records if draw.random() > share]
    found = at_once(kept, made.ends)
    assert found.records_missing == len(made.records) - len(kept)
    for pair, told in outcomes(found).items():
        assert told in (made.truth[pair], "evidence_missing"), (pair, kinds[pair - 1])
    of_path = {
        (h.chassis, h.point, h.datapath) for t in found.tasks for p in t.pairs for path in p.paths for h in path.hops
    }
    assert of_path <= {(r.chassis, Point(r.point).word, r.datapath) for r in made.records}


@PROPERTY
@given(kinds=MANY, seed=st.integers(0, 1 << 30), batches=st.integers(1, 12), lose=st.booleans())
def test_micro_batches_give_the_answer_of_the_whole(kinds: list[str], seed: int, batches: int, lose: bool) -> None:
    made, draw = cloud(kinds), random.Random(seed)
    records = [r for r in made.records if not lose or draw.random() > 0.1]
    draw.shuffle(records)
    stream = Incremental(made.ends, horizon_ns=1000 * S)
    for number in range(batches):
        stream.add(compact(to_table(records[number::batches])), number * S)
        stream.advance(number * S)
        assert stream.answers().packets <= len(kinds)
    assert stream.answers() == at_once(records, made.ends)


# --- in micro-batches -------------------------------------------------------------------------------------


def batch(records: Iterable[LogRecord]) -> pa.RecordBatch:
    return compact(to_table(records))


def test_blobs_of_different_types_are_kept_together() -> None:
    made = cloud(["switched", "routed", "hairpin", "routed 4"] * 12)
    stream = Incremental(made.ends, horizon_ns=1000 * S)
    batches = [blobs.decode(blobs.encode(to_table(r for r in made.records if r.key == key))) for key in range(1, 49)]
    assert len({str(one.schema) for one in batches}) > 1
    for number, one in enumerate(batches):
        stream.add(one, number * S)
        stream.add(one.slice(1, 1), number * S)
        assert stream.open_records == stream.records - stream.repeated
    assert stream.answers().packets == len(batches)
    assert stream.answers().tasks == at_once(made.records, made.ends).tasks


def test_state_is_bounded_and_the_answer_the_same() -> None:
    made = cloud(["switched", "routed", "hairpin", "routed 4"] * 50)
    whole = at_once(made.records, made.ends)
    stream = Incremental(made.ends, settle_ns=S, horizon_ns=3 * S)
    most = 0
    for second in range(50):
        keys = range(1 + 4 * second, 5 + 4 * second)
        stream.add(batch(r for r in made.records if r.key in keys), second * S)
        stream.advance(second * S)
        most = max(most, stream.open_records)
    assert most <= 5 * (4 + 6 + 9 + 4), "no more than five seconds of records are kept"
    assert stream.answers() == whole
    stream.advance(100 * S)
    assert stream.open_records == 0
    assert stream.answers() == whole


def test_a_straggler_corrects_what_was_told() -> None:
    made = cloud(["switched"] * 3)
    late = [r for r in made.records if r.key == 2 and r.chassis == HV2]
    stream = Incremental(settle_ns=S, horizon_ns=10 * S)
    stream.add(batch(r for r in made.records if r not in late), 0)
    assert stream.advance(2 * S).num_rows == 0
    before = of_pair(stream.answers(), 2)
    assert (before.delivered, before.evidence_missing) == (0, 1)
    stream.add(batch(late), 3 * S)
    assert stream.advance(3 * S).num_rows == 0, "not settled again yet"
    (told,) = stream.advance(5 * S).to_pylist()
    assert (told["key"], told["task"], told["pair"], told["before"], told["after"]) == (
        2,
        "t1",
        2,
        "lost_between",
        "delivered",
    )
    assert stream.advance(6 * S).num_rows == 0, "told once"
    assert of_pair(stream.answers(), 2).delivered == 1
    assert stream.answers() == at_once(made.records)


def test_what_comes_after_the_horizon_changes_nothing() -> None:
    made = cloud(["switched"] * 3)
    late = [r for r in made.records if r.key == 2 and r.chassis == HV2]
    stream = Incremental(made.ends, settle_ns=S, horizon_ns=S)
    stream.add(batch(r for r in made.records if r not in late), 0)
    stream.advance(5 * S)
    assert stream.open_records == 0
    before = stream.answers().tasks
    stream.add(batch(made.records), 6 * S)
    stream.advance(20 * S)
    after = stream.answers()
    assert after.repeated >= len(made.records) - len(late)
    assert (after.packets, of_pair(after, 1), of_pair(after, 3)) == (3, of_pair_of(before, 1), of_pair_of(before, 3))


def of_pair_of(tasks: tuple[object, ...], pair: int) -> object:
    (task,) = tasks
    return next(p for p in task.pairs if p.pair == pair)  # type: ignore[attr-defined]
