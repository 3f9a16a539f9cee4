"""Topologies of benchmark labs: names, addresses and places drawn from the seed, so that no answer can lean on them."""

from __future__ import annotations

import random
import re
from importlib import resources
from typing import Protocol

SERVERS = 3
SHIPPED = {"slb": "slb", "internet": "internet", "datacenter": "datacenter", "vpcs": "vpc-vpc"}
_SERVER_NAMES = ("hv1", "hv2", "hv3", "hv4", "gw1", "gw2", "gw3")
_VPC_NAMES = ("red", "blue")
_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"


class Rename(Protocol):
    """Gives a text of a shipped topology, or about it, the names and addresses that were drawn."""

    def __call__(self, text: str) -> str: ...


def word(rng: random.Random, letters: int = 6) -> str:
    """A name that can be spoken."""
    return "".join(rng.choice(_VOWELS if number % 2 else _CONSONANTS) for number in range(letters))


def words(rng: random.Random, count: int, letters: int = 4) -> list[str]:
    """Different names."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[word(rng, letters)] = None
    return list(found)


def renaming(rng: random.Random) -> Rename:
    """Draws names for VPCs and servers, and the private prefixes."""
    names = dict(zip((*_VPC_NAMES, *_SERVER_NAMES), words(rng, len(_VPC_NAMES) + len(_SERVER_NAMES)), strict=True))
    shift, group = rng.randint(3, 200), rng.randint(1, 255)
    known = re.compile(rf"\b({'|'.join(names)})\b")

    def rename(text: str) -> str:
        text = known.sub(lambda found: names[found[0]], text)
        text = re.sub(r"\b10\.(\d+)\.", lambda found: f"10.{int(found[1]) + shift}.", text)
        return re.sub(r"\bfd00:", f"fd{group:02x}:", text)

    return rename


def shipped(kind: str, rename: Rename) -> str:
    """The topology that ships for a kind of traffic, renamed."""
    return rename((resources.files("vtrace.lab") / "topologies" / f"{SHIPPED[kind]}.toml").read_text())


def vpcs(rng: random.Random) -> str:
    """Two VPCs with the same addresses, two switches and a router each, and VMs in all placements on three servers."""
    servers = words(rng, SERVERS)
    lines = [f'encap = "{rng.choice(("geneve", "geneve", "vxlan"))}"', "vm_mtu = 1400"]
    for name in servers:
        lines += ["[[server]]", f'name = "{name}"', f'region = "{rng.choice(("east", "west"))}"']
    nets = rng.sample(range(1, 250), 3)
    second, group = rng.randint(1, 249), rng.randint(1, 255)
    hosts = rng.sample(range(10, 200), 7)
    places = [rng.sample(servers, 3) for _ in range(2)]
    for vpc in words(rng, 2):
        router = f"{vpc}-{word(rng)}"
        lines += ["[[router]]", f'name = "{router}"', f'vpc = "{vpc}"']
        number = 0
        for net, on in zip(nets, (*places,), strict=False):
            switch, four, six = f"{vpc}-{word(rng)}", f"10.{second}.{net}", f"fd{group:02x}:{net:x}::"
            lines += ["[[switch]]", f'name = "{switch}"', f'vpc = "{vpc}"', f'router = "{router}"']
            lines += [f'subnets = ["{four}.0/24", "{six}/64"]']
            # The first switch has two VMs on one server; those of the second have addresses behind them.
            for server in (on[0], *on) if number == 0 else on:
                name, host = f"{vpc}-{word(rng, 5)}{number}", hosts[number]
                lines += ["[[vm]]", f'name = "{name}"', f'switch = "{switch}"', f'server = "{server}"']
                lines += [f'addresses = ["{four}.{host}", "{six}{host:x}"]']
                if net == nets[1]:
                    behind = (f"10.{second + 1}.{number}", f"fd{group:02x}:ff{number:02x}::")
                    lines += [f'aliases = ["{behind[0]}.1", "{behind[1]}1"]']
                    routes = ((f"{behind[0]}.0/24", f"{four}.{host}"), (f"{behind[1]}/64", f"{six}{host:x}"))
                    for prefix, hop in routes:
                        lines += ["[[route]]", f'router = "{router}"', f'prefix = "{prefix}"', f'nexthop = "{hop}"']
                number += 1
    return "\n".join(lines) + "\n"
