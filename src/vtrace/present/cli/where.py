"""The options that say where a command works: a lab, or the databases and the bridge of a cloud."""

from __future__ import annotations

import argparse


def add_where(parser: argparse.ArgumentParser, *, verb: str) -> None:
    """Adds `--lab`, `--nb`, `--sb`, `--rundir` and `--bridge`, as `embedded.find_cloud` takes them.

    Args:
        verb: what is done to the lab, in words: "work on".
    """
    add = parser.add_argument
    add("--lab", metavar="NAME", help=f"{verb} this lab (default: VTRACE_LAB, or the lab named lab if it is up)")
    add("--nb", metavar="REMOTE", help="OVN northbound database (default: OVN_NB_DB)")
    add("--sb", metavar="REMOTE", help="OVN southbound database (default: OVN_SB_DB)")
    add("--rundir", metavar="DIR", help="Open vSwitch's run directory on this server (default: OVS_RUNDIR)")
    add("--bridge", metavar="NAME", default="br-int", help="the integration bridge (default br-int)")
