"""A real `dpctl/ipf-get-status` (OVS 3.1.0, userspace)."""

from __future__ import annotations

from vtrace.ovs.ipf import parse_status

STATUS = """\tFragmentation Module Status
\t---------------------------
\tv4 enabled: 1
\tv6 enabled: 1
\tmax num frags (v4/v6): 1000
\tnum frag: 144
\tmin v4 frag size: 1200
\tv4 frags accepted: 153
\tv4 frags completed: 1
\tv4 frags expired: 9
\tv4 frags too small: 612
\tv4 frags overlapped: 2
\tv4 frags purged: 3
\tmin v6 frag size: 1280
\tv6 frags accepted: 0
\tv6 frags completed: 0
\tv6 frags expired: 0
\tv6 frags too small: 4
\tv6 frags overlapped: 0
\tv6 frags purged: 0
"""


def test_what_was_not_taken_of_each_family() -> None:
    counters, shortest = parse_status(STATUS)
    assert counters == {
        "v4": {"expired": 9, "too short": 612, "overlapped": 2, "purged": 3},
        "v6": {"expired": 0, "too short": 4, "overlapped": 0, "purged": 0},
    }
    assert shortest == {"v4": 1200, "v6": 1280}
