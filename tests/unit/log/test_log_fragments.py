"""Which fragments a task asks for by protocol and ports, that Open vSwitch can't match."""

from __future__ import annotations

import pytest

from vtrace.log.fragments import DATAGRAMS, Fragments
from vtrace.log.packet import FIRST_FRAGMENT, LATER_FRAGMENT, Headers


def headers(fragment: int, ident: int = 7, *, dport: int = 0, sport: int = 0, proto: int = 17) -> Headers:
    return Headers(
        eth_src=1,
        eth_dst=2,
        proto=proto,
        src="10.0.0.1",
        dst="10.0.0.2",
        sport=sport,
        dport=dport,
        ip_id=ident,
        fragment=fragment,
    )


@pytest.mark.parametrize(("dport", "wanted"), [(53, True), (54, False)], ids=["its port", "another"])
def test_later_fragments_are_what_the_first_of_their_datagram_is(dport: int, wanted: bool) -> None:
    fragments = Fragments()
    assert fragments.is_wanted(headers(FIRST_FRAGMENT, dport=dport), [(17, None, 53)]) is wanted
    assert fragments.is_wanted(headers(LATER_FRAGMENT), [(17, None, 53)]) is wanted
    assert fragments.is_wanted(headers(LATER_FRAGMENT), [(17, None, 53)]) is wanted


def test_a_later_fragment_without_a_first_is_not_wanted_where_ports_are_named() -> None:
    fragments = Fragments()
    assert not fragments.is_wanted(headers(LATER_FRAGMENT), [(17, None, 53)])
    assert fragments.is_wanted(headers(LATER_FRAGMENT), [(17, None, None)])
    assert fragments.is_wanted(headers(LATER_FRAGMENT), [(None, None, None)])


def test_one_of_several_kinds_is_enough() -> None:
    fragments = Fragments()
    asked = [(17, None, 53), (6, None, 80)]
    assert fragments.is_wanted(headers(FIRST_FRAGMENT, dport=80, proto=6), asked)
    assert fragments.is_wanted(headers(LATER_FRAGMENT, proto=6), asked)
    assert not fragments.is_wanted(headers(FIRST_FRAGMENT, dport=80), asked)


def test_datagrams_are_told_apart_by_protocol_addresses_and_id() -> None:
    fragments = Fragments()
    fragments.is_wanted(headers(FIRST_FRAGMENT, dport=53), [(17, None, 53)])
    assert not fragments.is_wanted(headers(LATER_FRAGMENT, 8), [(17, None, 53)])
    assert not fragments.is_wanted(headers(LATER_FRAGMENT, proto=6), [(None, None, 53)])
    assert not fragments.is_wanted(headers(FIRST_FRAGMENT, dport=53, proto=6), [(17, None, 53)])


def test_an_id_that_is_used_again_is_another_datagram() -> None:
    fragments = Fragments()
    fragments.is_wanted(headers(FIRST_FRAGMENT, sport=9), [(None, 9, None)])
    fragments.is_wanted(headers(FIRST_FRAGMENT, sport=10), [(None, 9, None)])
    assert not fragments.is_wanted(headers(LATER_FRAGMENT), [(None, 9, None)])


def test_only_so_many_datagrams_are_remembered() -> None:
    fragments = Fragments()
    for ident in range(DATAGRAMS + 1):
        fragments.is_wanted(headers(FIRST_FRAGMENT, ident, dport=53), [(None, None, 53)])
    assert not fragments.is_wanted(headers(LATER_FRAGMENT, 0), [(None, None, 53)])
    assert fragments.is_wanted(headers(LATER_FRAGMENT, 1), [(None, None, 53)])
