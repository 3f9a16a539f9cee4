"""Cookie, color and guard fields, against the table in the registry's documentation and RFC 2474."""

from __future__ import annotations

import pytest
from builders import PROPERTY
from hypothesis import given
from hypothesis import strategies as st

from vtrace.color import guard, registry
from vtrace.color.registry import Role, Stage, cookie
from vtrace.model.openflow import GuardBits

ROLES = st.sampled_from(Role)
GENERATIONS = st.integers(0, 0xFFF)
COLORS = st.integers(0, 63)
INDEXES = st.integers(0, 2**26 - 1)


def test_every_field_of_a_cookie_has_its_place() -> None:
    # 0x5654 | role 5 | generation 0xabc | color 0b101011 | index 0x2345678: bits 63-48, 47-44, 43-32, 31-26, 25-0.
    assert cookie(Role.PROBE, 0xABC, color=0b101011, index=0x2345678) == 0x5654_5ABC_AE34_5678


@PROPERTY
@given(ROLES, GENERATIONS, COLORS, INDEXES)
def test_cookie_fields_round_trip(role: Role, generation: int, color: int, index: int) -> None:
    made = cookie(role, generation, color=color, index=index)
    assert registry.is_ours(made)
    assert registry.role_of(made) == role
    assert registry.generation_of(made) == generation
    assert registry.color_of(made) == color
    assert registry.index_of(made) == index
    assert made < 2**64


@PROPERTY
@given(st.tuples(ROLES, GENERATIONS, COLORS, INDEXES), st.tuples(ROLES, GENERATIONS, COLORS, INDEXES))
def test_masks_select_what_their_names_say(one: tuple[Role, int, int, int], two: tuple[Role, int, int, int]) -> None:
    a, b = (cookie(r, g, color=c, index=i) for r, g, c, i in (one, two))
    role, generation, color = (x == y for x, y in zip(one[:3], two[:3], strict=True))
    assert (a & registry.COOKIE_MAGIC_MASK) == (b & registry.COOKIE_MAGIC_MASK)
    assert ((a & registry.GENERATION_MASK) == (b & registry.GENERATION_MASK)) == generation
    assert ((a & registry.ROLE_MASK) == (b & registry.ROLE_MASK)) == (generation and role)
    assert ((a & registry.COLOR_MASK) == (b & registry.COLOR_MASK)) == (generation and role and color)
    assert ((a & registry.FULL_MASK) == (b & registry.FULL_MASK)) == (one == two)


@pytest.mark.parametrize(
    ("generation", "color", "index"),
    [(4096, 0, 0), (-1, 0, 0), (0, 64, 0), (0, -1, 0), (0, 0, 2**26), (0, 0, -1)],
)
def test_a_field_that_does_not_fit_is_refused(generation: int, color: int, index: int) -> None:
    with pytest.raises(ValueError, match=r"fit|DSCP"):
        cookie(Role.COLOR, generation, color=color, index=index)


@PROPERTY
@given(st.integers(0, 2**32 - 1))
def test_no_cookie_of_ovn_is_ours(value: int) -> None:
    # ovn-controller's cookies are the first 32 bits of a uuid.
    assert not registry.is_ours(value)


def test_colors_are_pool_2_of_rfc_2474() -> None:
    assert set(registry.POOL_2) == {3, 7, 11, 15, 19, 23, 27, 31, 35, 39, 43, 47, 51, 55, 59, 63}
    # Not standardized ones: LE (RFC 8622) is 000001, NQB 101101, EF 101110, VOICE-ADMIT 101100.
    assert not set(registry.POOL_2) & {0b000001, 0b101101, 0b101110, 0b101100}


def test_no_two_roles_and_no_two_stages_share_a_number() -> None:
    assert len(set(Role)) == 9
    assert max(Role) < 16
    assert sorted(Stage) == [0, 1, 2, 3]


def stage_matches(match: str, stage: int, lsb: int) -> bool:
    """Whether a packet that passed a stage meets a match on the register, by the meaning of value/mask."""
    field, _, rest = match.partition("=")
    value, _, mask = rest.partition("/")
    assert field in ("reg10", "reg4")
    return (stage << lsb) & int(mask, 0) == int(value, 0)


@pytest.mark.parametrize(("register", "lsb"), [(10, 0), (10, 25), (10, 26), (4, 30)])
def test_guard_matches_select_the_stages_before(register: int, lsb: int) -> None:
    bits = GuardBits(register=register, lsb=lsb)

    def selected(match: str) -> set[int]:
        return {stage for stage in range(4) if stage_matches(match, stage, lsb)}

    assert selected(guard.match_none(bits)) == {Stage.NONE}
    assert selected(guard.match_before_remote_output(bits)) == {Stage.NONE, Stage.TABLE_0}
    one, two = guard.matches_before_log_to_physical(bits)
    assert selected(one) | selected(two) == {Stage.NONE, Stage.TABLE_0, Stage.REMOTE_OUTPUT}
    assert not selected(one) & selected(two), "overlapping entries of one priority are undefined"


@PROPERTY
@given(st.integers(0, 2**32 - 1), st.integers(0, 30))
def test_guard_matches_look_at_no_other_bit(flags: int, lsb: int) -> None:
    bits = GuardBits(register=10, lsb=lsb)
    for match in (
        guard.match_none(bits),
        guard.match_before_remote_output(bits),
        *guard.matches_before_log_to_physical(bits),
    ):
        mask = int(match.rpartition("/")[2], 0)
        assert mask & ~(3 << lsb) == 0


@PROPERTY
@given(st.tuples(st.integers(1, 4095), st.integers(0, 511)), st.tuples(st.integers(1, 4095), st.integers(0, 511)))
def test_match_of_a_run_and_pair_is_its_own_and_meets_every_packet_of_table_0(
    one: tuple[int, int], two: tuple[int, int]
) -> None:
    assert (guard.match_run(*one) == guard.match_run(*two)) == (one == two)
    for term in guard.match_run(*one).split(","):
        value, _, mask = term.partition("=")[2].partition("/")
        assert int(value, 0) == 0
        assert int(mask, 0) > 0, "ovs-ofctl leaves out a field with an empty mask"


def test_guard_load_writes_its_two_bits_only() -> None:
    assert guard.load(GuardBits(register=10, lsb=26), Stage.REMOTE_OUTPUT) == "load:0x2->NXM_NX_REG10[26..27]"
