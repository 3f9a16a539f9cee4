"""The ways packets take through translation, hop by hop, as the topology says: truth for what an answer must show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Ip = Literal[4, 6]
Proto = Literal["udp", "tcp", "icmp"]


@dataclass(frozen=True)
class Hop:
    """An observation. `changed` are the kinds of rewriting since the one before."""

    server: str
    vfd: str
    point: str
    in_port: str
    out_port: str
    src: str
    dst: str
    changed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Way:
    """Packets from one end to the other, and what an operator asks about them.

    Attributes:
        sender, receiver: nodes of the lab that send the forward direction, and get it.
        towards: the name, in `addresses`, of what the sender sends to.
        task: what `--from` and `--to` get, nodes or names in `addresses`.
        hops: every observation in order; source and destination are names in `addresses`.
        protos: what the way is for.
        port: where the sender sends to, if that is not the case's own; `own_port` what the receiver gets then.
    """

    name: str
    sender: str
    receiver: str
    towards: str
    task: tuple[str, str]
    direction: Literal["forward", "reply"]
    hops: tuple[Hop, ...]
    addresses: Mapping[str, tuple[str, str]]
    arrival: str = "delivered"
    protos: tuple[Proto, ...] = ("udp", "tcp", "icmp")
    port: int = 0
    own_port: int = 0

    def address(self, name: str, ip: Ip) -> str:
        """An address of that version; what has none stands for itself."""
        found = self.addresses.get(name)
        return found[0 if ip == 4 else 1] if found else name

    @property
    def captured(self) -> str:
        """Where the way's packets arrive."""
        return self.receiver if self.direction == "forward" else self.sender

    @property
    def sending(self) -> str:
        """Where they are sent."""
        return self.sender if self.direction == "forward" else self.receiver


def hops(text: str) -> tuple[Hop, ...]:
    """A table of hops: server, VFD, point, in port, out port, source, destination, rewriting; `-` for none."""
    found = []
    for line in text.strip().splitlines():
        server, vfd, point, in_port, out_port, src, dst, *changed = line.split()
        came = f"tunnel from {in_port[1:]}" if in_port.startswith("~") else in_port
        found.append(
            Hop(server, vfd, point, "" if came == "-" else came, out_port.strip("-"), src, dst, tuple(changed))
        )
    return tuple(found)


INTERNET: dict[str, tuple[str, str]] = {
    "host": ("198.51.100.10", "2001:db8:100::10"),
    "host2": ("198.51.100.20", "2001:db8:100::20"),
    "vm1": ("10.1.1.11", "fd00:1:1::11"),
    "vm2": ("10.1.1.12", "fd00:1:1::12"),
    "vm3": ("10.1.1.13", "fd00:1:1::13"),
    "shared": ("203.0.113.20", "2001:db8:ff::20"),
    "fip1": ("203.0.113.21", "2001:db8:ff::21"),
    "fip2": ("203.0.113.22", "2001:db8:ff::22"),
}


def _central(vm: str, server: str, own: str, floating: str, change: str) -> tuple[Hop, ...]:
    """Out by the gateway that has the router's outer port."""
    return hops(f"""
        {server} red-web    first_hop      {vm}               -                    {own} host
        {server} red-web    logical_egress {vm}               red-web-red-router   {own} host
        {server} red-router remote_output  red-router-red-web cr-red-router-public {own} host
        gw1      red-router ingress        ~{server}          -                    {own} host
        gw1      red-router logical_egress red-router-red-web red-router-public    {floating} host {change}
        gw1      public     egress         public-red-router  public-localnet      {floating} host
    """)


def _inward(vm: str, server: str, own: str, floating: str, change: str) -> tuple[Hop, ...]:
    """In by the gateway, and by a tunnel to the VM's server."""
    return hops(f"""
        gw1      public     first_hop      public-localnet    -                    host {floating}
        gw1      public     logical_egress public-localnet    public-red-router    host {floating}
        gw1      red-router logical_egress red-router-public  red-router-red-web   host {own} {change}
        gw1      red-web    remote_output  red-web-red-router {vm}                 host {own}
        {server} red-web    ingress        ~gw1               -                    host {own}
        {server} red-web    egress         red-web-red-router {vm}                 host {own}
    """)


DISTRIBUTED_OUT = hops("""
    hv2 red-web    first_hop      red-web2           -                  vm2 host
    hv2 red-web    logical_egress red-web2           red-web-red-router vm2 host
    hv2 red-router logical_egress red-router-red-web red-router-public  fip2 host snat
    hv2 public     egress         public-red-router  public-localnet    fip2 host
""")
DISTRIBUTED_IN = hops("""
    hv2 public     first_hop      public-localnet    -                  host fip2
    hv2 public     logical_egress public-localnet    public-red-router  host fip2
    hv2 red-router logical_egress red-router-public  red-router-red-web host vm2 dnat
    hv2 red-web    egress         red-web-red-router red-web2           host vm2
""")


def _outward(name: str, vm: str, found: tuple[Hop, ...]) -> Way:
    return Way(name, vm, "internet1", "host", (vm, "host"), "forward", found, INTERNET, arrival="left_domain")


CENTRAL = _outward("central-out", "red-web1", _central("red-web1", "hv1", "vm1", "fip1", "snat"))
DISTRIBUTED = _outward("distributed-out", "red-web2", DISTRIBUTED_OUT)
SHARED = _outward("shared-out", "red-web3", _central("red-web3", "hv2", "vm3", "shared", "snat"))
# To where only one test sends.
QUIET = replace(
    SHARED,
    name="shared-out-quiet",
    towards="host2",
    task=("red-web3", "host2"),
    hops=tuple(replace(hop, dst="host2") for hop in SHARED.hops),
)
CENTRAL_IN = Way(
    "central-in",
    "internet1",
    "red-web1",
    "fip1",
    ("host", "red-web1"),
    "forward",
    _inward("red-web1", "hv1", "vm1", "fip1", "dnat"),
    INTERNET,
)
DISTRIBUTED_INWARD = Way(
    "distributed-in", "internet1", "red-web2", "fip2", ("host", "red-web2"), "forward", DISTRIBUTED_IN, INTERNET
)
SHARED_REPLY = Way(
    "shared-reply",
    "red-web3",
    "internet1",
    "host",
    ("red-web3", "host"),
    "reply",
    _inward("red-web3", "hv2", "vm3", "shared", "unsnat"),
    INTERNET,
)
INTERNET_WAYS = (CENTRAL, DISTRIBUTED, SHARED, CENTRAL_IN, DISTRIBUTED_INWARD, SHARED_REPLY)

SLB: dict[str, tuple[str, str]] = {
    "client1": ("10.1.1.11", "fd00:1:1::11"),
    "web2": ("10.1.2.12", "fd00:1:2::12"),
    "vip": ("10.1.9.2", "fd00:1:9::2"),
    "edge": ("10.1.8.1", "fd00:1:8::1"),
}
TO_BACKEND = hops("""
    hv1 red-client first_hop      red-client1           -                     client1 vip
    hv1 any        logical_egress -                     -                     client1 web2 load_balancing
    hv1 red-client logical_egress red-client1           red-client-red-router client1 web2
    hv1 red-router logical_egress red-router-red-client red-router-red-web    client1 web2
    hv1 red-web    remote_output  red-web-red-router    red-web2              client1 web2
    hv2 red-web    ingress        ~hv1                  -                     client1 web2
    hv2 red-web    egress         red-web-red-router    red-web2              client1 web2
""")
FROM_BACKEND = hops("""
    hv2 red-web    first_hop      red-web2              -                     web2 client1
    hv2 red-web    logical_egress red-web2              red-web-red-router    web2 client1
    hv2 red-router logical_egress red-router-red-web    red-router-red-client web2 client1
    hv2 red-client remote_output  red-client-red-router red-client1           web2 client1
    hv1 red-client ingress        ~hv2                  -                     web2 client1
    hv1 any        logical_egress -                     -                     vip client1 undnat
    hv1 red-client egress         red-client-red-router red-client1           vip client1
""")
VIP = Way("to-vip", "red-client1", "red-web2", "vip", ("red-client1", "vip"), "forward", TO_BACKEND, SLB)
BACKEND = Way("to-backend", "red-client1", "red-web2", "vip", ("red-client1", "red-web2"), "forward", TO_BACKEND, SLB)
FROM_VIP = Way("from-vip", "red-client1", "red-web2", "vip", ("red-client1", "vip"), "reply", FROM_BACKEND, SLB)
SLB_WAYS = (VIP, BACKEND, FROM_VIP)
