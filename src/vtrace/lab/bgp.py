"""Dynamic routing: a BIRD beside a logical router and one in an outside box, and a keeper of the learned routes."""

from __future__ import annotations

import ipaddress
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from vtrace.errors import CannotWorkError
from vtrace.lab import state as lab_state
from vtrace.lab.declared import Bgp, Topology
from vtrace.lab.programs import ProgramError, run_on
from vtrace.lab.state import LabState

KEEPER = Path(__file__).with_name("route_keeper.py")
PACKAGES = {"bird": "bird2", "birdc": "bird2"}
"""What a topology with [[bgp]] needs beside programs.PACKAGES."""

_HEAD = """log "{rundir}/bird.log" all;
router id {identifier};
protocol device {{}}
protocol kernel learned4 {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}
protocol kernel learned6 {{ ipv6 {{ import none; export where source = RTS_BGP; }}; }}
"""
_PREFIX = "protocol static announce{number} {{ ipv{version}; route {prefix} unreachable; }}\n"
_SESSION = """protocol bgp peer{version} {{
  local {local} as {asn};
  neighbor {neighbor} as {peer_asn};
  connect delay time 1;
  connect retry time 1;
  error wait time 1, 2;
  hold time 9;
  ipv{version} {{ import all; export filter {{ if source = RTS_STATIC then {{ {nexthop}accept; }} reject; }}; }};
}}
"""


def daemons_of(state: LabState) -> list[tuple[str, str]]:
    """All (node, daemon) that `start` starts."""
    birds = dict.fromkeys(name for speaker in state.speakers for name in (speaker.name, speaker.peer))
    return [(name, "bird") for name in birds] + [(speaker.name, KEEPER.stem) for speaker in state.speakers]


def start(state: LabState, topology: Topology) -> None:
    """Start the speakers of both sides, and the programs that keep what they learn in the northbound database.

    Raises:
        CannotWorkError: one did not start.
    """
    peers: dict[str, list[Bgp]] = {}
    for bgp in topology.bgps:
        peers.setdefault(bgp.peer, []).append(bgp)
        _bird(state, bgp.name, speaker_configuration(topology, bgp, _rundir(state, bgp.name)))
        options = {"nb": state.nb_remote, "router": bgp.router, "speaker": bgp.name}
        options |= {"pid_file": str(_rundir(state, bgp.name) / f"{KEEPER.stem}.pid")}
        run_on(state, bgp.name, [sys.executable, "-S", "-E", str(KEEPER), json.dumps(options)])
    for name, bgps in peers.items():
        _bird(state, name, peer_configuration(topology, bgps, _rundir(state, name)))


def speaker_configuration(topology: Topology, bgp: Bgp, rundir: Path) -> str:
    """The configuration of the BIRD that speaks for a router: its next hop is the router's own address."""
    link = next(link for link in topology.links if (link.router, link.switch) == (bgp.router, bgp.switch))
    text = _HEAD.format(rundir=rundir, identifier=_identifier(bgp.addresses, topology.bgps.index(bgp)))
    text += _prefixes(bgp.announce)
    for version, local, neighbor in _sessions(topology, bgp):
        nexthop = next((a for a in link.addresses if ipaddress.ip_address(a).version == version), None)
        text += _SESSION.format(
            version=version,
            local=local,
            asn=bgp.asn,
            neighbor=neighbor,
            peer_asn=bgp.peer_asn,
            nexthop=f"bgp_next_hop = {nexthop}; " if nexthop is not None else "",
        )
    return text


def peer_configuration(topology: Topology, bgps: list[Bgp], rundir: Path) -> str:
    """The configuration of the BIRD in an outside box."""
    box = next(box for box in topology.outsides if box.name == bgps[0].peer)
    own = tuple(text.partition("/")[0] for text in box.addresses)
    text = _HEAD.format(rundir=rundir, identifier=_identifier(own, len(topology.bgps)))
    text += _prefixes(tuple(dict.fromkeys(prefix for bgp in bgps for prefix in bgp.peer_announce)))
    for number, bgp in enumerate(bgps):
        for version, local, neighbor in _sessions(topology, bgp):
            session = _SESSION.format(
                version=version, local=neighbor, asn=bgp.peer_asn, neighbor=local, peer_asn=bgp.asn, nexthop=""
            )
            text += session.replace(f"bgp peer{version} ", f"bgp peer{version}_{number} ") if number else session
    return text


def _prefixes(prefixes: tuple[str, ...]) -> str:
    """One protocol a prefix, so that `birdc disable announceN` withdraws it."""
    return "".join(
        _PREFIX.format(number=number, version=ipaddress.ip_network(prefix).version, prefix=prefix)
        for number, prefix in enumerate(prefixes, 1)
    )


def _sessions(topology: Topology, bgp: Bgp) -> Iterator[tuple[int, str, str]]:
    """(IP version, the speaker's address, the peer's): one session a version that both have."""
    box = next(box for box in topology.outsides if box.name == bgp.peer)
    for version in (4, 6):
        local = [a for a in bgp.addresses if ipaddress.ip_address(a).version == version]
        neighbor = [a for a in box.addresses if ipaddress.ip_interface(a).version == version]
        if local and neighbor:
            yield version, local[0], neighbor[0].partition("/")[0]


def _identifier(addresses: tuple[str, ...], number: int) -> str:
    """A router id: the first IPv4 address, or one made up."""
    return next((text for text in addresses if "." in text), f"0.0.1.{number + 1}")


def _rundir(state: LabState, node: str) -> Path:
    return lab_state.node_directory(state.name, node)


def _bird(state: LabState, node: str, configuration: str) -> None:
    """Start a BIRD; it detaches once its configuration is read."""
    rundir = _rundir(state, node)
    rundir.mkdir(parents=True, exist_ok=True)
    (rundir / "bird.conf").write_text(configuration)
    files = ["-c", f"{rundir}/bird.conf", "-s", f"{rundir}/bird.ctl", "-P", f"{rundir}/bird.pid"]
    try:
        run_on(state, node, ["bird", *files])
    except ProgramError as error:
        raise CannotWorkError("bird did not start", node, error.why) from error
