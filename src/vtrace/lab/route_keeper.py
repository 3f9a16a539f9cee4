"""Keeps the routes a BGP speaker learns as static routes of a logical router.

A program of its own, standard library only, run by path in the speaker's namespace. BIRD puts what it learns into
the kernel there; the kernel tells us of each change. `route_keeper.py JSON` detaches; JSON: nb (the northbound
database), router, speaker, pid_file.
"""

from __future__ import annotations

import ipaddress
import json
import os
import select
import socket
import subprocess
import sys
import time

Route = tuple[str, str]
"""(prefix, next hop)"""

ROUTE_GROUPS = 0x40 | 0x400
"""Of rtnetlink: changes of IPv4 and of IPv6 routes (linux/rtnetlink.h)."""
LOOK_AGAIN_S = 5.0
SETTLE_S = 0.05
"""Changes come in groups: wait that long for the rest."""
COMMAND_TIMEOUT_S = 10.0
OWNER_KEY = 'external_ids:"vtrace:bgp"'


def output(argv: list[str]) -> str:
    """What a program prints."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=True)
    return done.stdout


def learned() -> set[Route]:
    """The routes BIRD has put into the kernel."""
    found = set()
    for family, everything in (("-4", "0.0.0.0/0"), ("-6", "::/0")):
        for route in json.loads(output(["ip", "-j", family, "route", "show", "proto", "bird"]) or "[]"):
            prefix = everything if route["dst"] == "default" else route["dst"]
            if "gateway" in route:
                found.add((str(ipaddress.ip_network(prefix)), str(ipaddress.ip_address(route["gateway"]))))
    return found


class Keeper:
    """Makes a router's routes those that were learned."""

    def __init__(self, database: str, router: str, speaker: str) -> None:
        self.nbctl = ["ovn-nbctl", f"--db={database}"]
        self.router = router
        self.owned = f'{OWNER_KEY}="{speaker}"'

    def kept(self) -> dict[str, Route]:
        """The router's routes that are ours, by row."""
        columns = ["--format=json", "--columns=_uuid,ip_prefix,nexthop"]
        text = output([*self.nbctl, *columns, "find", "Logical_Router_Static_Route", self.owned])
        return {row[0][1]: (row[1], row[2]) for row in json.loads(text)["data"]}

    def reconcile(self) -> None:
        """Add what is missing and remove what is no longer learned, in one transaction."""
        wanted, kept = learned(), self.kept()
        argv: list[str] = []
        for row, route in kept.items():
            if route not in wanted:
                argv += ["--", "remove", "Logical_Router", self.router, "static_routes", row]
        for number, (prefix, nexthop) in enumerate(sorted(wanted - set(kept.values()))):
            columns = [f'ip_prefix="{prefix}"', f'nexthop="{nexthop}"', self.owned]
            argv += ["--", f"--id=@r{number}", "create", "Logical_Router_Static_Route", *columns]
            argv += ["--", "add", "Logical_Router", self.router, "static_routes", f"@r{number}"]
        if argv:
            output([*self.nbctl, *argv[1:]])

    def run(self, changes: socket.socket) -> None:
        """Reconcile at every change, and now and then without one."""
        while True:
            try:
                self.reconcile()
            except (OSError, subprocess.SubprocessError, ValueError) as error:  # the database is away: again later
                print(f"{time.strftime('%H:%M:%S')} {error}", file=sys.stderr, flush=True)
            if select.select([changes], [], [], LOOK_AGAIN_S)[0]:
                time.sleep(SETTLE_S)
                drain(changes)


def drain(changes: socket.socket) -> None:
    """Take all that has come; what it says is looked up afterwards."""
    while True:
        try:
            changes.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:  # more came than the socket holds: we look at everything anyway
            continue


def detach(pid_file: str) -> None:
    """Leave the caller, and say who we are."""
    if os.fork():
        os._exit(0)
    os.setsid()
    with open(pid_file, "w") as file:
        file.write(str(os.getpid()))
    null = os.open(os.devnull, os.O_RDWR)
    log = os.open(pid_file.removesuffix(".pid") + ".log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for descriptor, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, target)


def main() -> None:
    """Listen for changes, detach, keep."""
    options = json.loads(sys.argv[1])
    changes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    changes.bind((0, ROUTE_GROUPS))
    detach(options["pid_file"])
    Keeper(options["nb"], options["router"], options["speaker"]).run(changes)


if __name__ == "__main__":
    main()
