"""The kinds of traffic: for each the ways that its packets take, as the lab's records show them (docs/kinds).

A line is a record, `SERVER POINT DATAPATH [IN [OUT]]`, or what happens to the packet before the next one:

- servers: S of the sender, D of the receiver, G the gateway, H another gateway, X a third server.
- points: `first`; `from SERVER` (it came in by a tunnel from there); `on` (the device passed it on); `to SERVER` (it is
  sent there by a tunnel); `out` (it is handed out).
- datapaths: A, B switches of sender and receiver; R their router, R2 that of the other VPC, T the transit switch; P
  provider network; J join switch, V gateway router (V2 a second one), E peering network.
- ports: `src`, `dst` of the VMs; `A.R` that of A towards R; `R.cr` the gateway's of R; `P.net` of a physical network;
  `group` a multicast group, `n1` to `n3` other VMs of the switch.
- `eth FROM TO`: whose Ethernet addresses it has: `net` the outside's, `all` the group's, `nat` that of the VM's
  floating address. `route FROM TO`: likewise after a router, which takes one off the TTL. `nat`: it has its other IP
  addresses and ports from here on.
- `+src`, `+dst`: conntrack has just changed its source or its destination. `@N` names the record before, if that is not
  the last line's. `repeat` begins a round, which goes on until the TTL ends it.
"""

from __future__ import annotations

KINDS = (
    "vpc-switched",
    "vpc-routed",
    "slb",
    "internet-distributed",
    "internet-gateway",
    "internet-snat",
    "datacenter",
    "vpc-vpc",
)
"""Kinds that can be asked for."""
FLOOD, LOOP = "flood", "loop"
ALL_KINDS = (*KINDS, FLOOD, LOOP)

OUT, IN = 0, 1
"""Directions: that of a pair's first packet, and that of its answers."""

_SWITCHED = "eth src dst\nS first A src\n"
_ROUTED = "eth src A.R\nS first A src\nS on A src A.R\nroute R.B dst\nS on R R.A R.B\n"
_TRANSIT = """
eth src A.R
S first A src
S on A src A.R
route R.T R2.T
S on R R.A R.T
S on T T.R T.R2
route R2.B dst
S on R2 R2.T R2.B
"""
_TO_GATEWAY = "eth src A.R\nS first A src\nS on A src A.R\nroute R.P net\nS to G R R.A R.cr\nG from S R\nnat\n"
_TO_VBR = """
eth src A.R
S first A src
S on A src A.R
route R.J V.J
S on R R.A R.J
S to G J J.R J.V
G from S J
G on J J.R J.V
"""
_VIP = "eth src A.R\nS first A src\nnat\nS on A src A.R\nroute R.B dst\nS on R R.A R.B\n"

_HERE = "S out B {0} dst"
_THERE = "S to D B {0} dst\nD from S B\nD out B {0} dst"

TEMPLATES: dict[str, tuple[str, str]] = {
    "vpc-switched local": (_SWITCHED + "S out A src dst",) * 2,
    "vpc-switched": (_SWITCHED + "S to D A src dst\nD from S A\nD out A src dst",) * 2,
    "vpc-routed local": (_ROUTED + _HERE.format("B.R"),) * 2,
    "vpc-routed": (_ROUTED + _THERE.format("B.R"),) * 2,
    "slb local": (_VIP + _HERE.format("B.R"), _ROUTED + "nat\n" + _HERE.format("B.R") + " +src"),
    "slb": (
        _VIP + _THERE.format("B.R"),
        _ROUTED + "S to D B B.R dst\nD from S B\nnat\nD out B B.R dst +src",
    ),
    "vpc-vpc local": (_TRANSIT + _HERE.format("B.R2"),) * 2,
    "vpc-vpc": (_TRANSIT + _THERE.format("B.R2"),) * 2,
    "internet-distributed": (
        "eth src A.R\nS first A src\nS on A src A.R\nroute nat net\nnat\nS on R R.A R.P +src\nS out P P.R P.net",
        "eth net nat\nD first P P.net\nD on P P.net P.R\nroute R.B dst\nnat\nD on R R.P R.B +dst\nD out B B.R dst",
    ),
    "internet-gateway": (
        _TO_GATEWAY + "G on R R.A R.P +src\nG out P P.R P.net",
        "eth net R.P\nG first P P.net\nG on P P.net P.R\nroute R.B dst\nnat\nG on R R.P R.B +dst\n"
        "G to D B B.R dst\nD from G B\nD out B B.R dst",
    ),
    "datacenter": (
        _TO_VBR + "route V.E net\nG on V V.J V.E\nG out E E.V E.net",
        "eth net V.E\nG first E E.net\nG on E E.net E.V\nroute V.J R.J\nG on V V.E V.J\nG on J J.V J.R\n"
        "route R.B dst\nG on R R.J R.B\nG to D B B.R dst\nD from G B\nD out B B.R dst",
    ),
    # A router gets what is flooded from the sender's server alone (controller/physical.c, consider_mc_group).
    "flood local": (
        "eth src all\nS first A src\nS to * A src group\nS on A src A.R @1\nX from S A @1\nX out A src n1\n"
        "S out A src n2 @1\nS out A src dst @1",
    )
    * 2,
    "flood": (
        "eth src all\nS first A src\nS to * A src group\nS on A src A.R @1\nS out A src n1 @1\nX from S A @1\n"
        "X out A src n2\nD from S A @1\nD out A src n3 @6\nD out A src dst @6",
    )
    * 2,
    # Two routers that send the packets to each other, on one server.
    "loop local": (
        _TO_VBR
        + "repeat\nroute V.J R.J\nG on V V.J V.J\nG on J J.V J.R\nroute R.J V.J\nG on R R.J R.J\nG on J J.R J.V",
    )
    * 2,
    # Two gateway routers, each on a server of its own.
    "loop": (
        _TO_VBR + "repeat\nroute V.J V2.J\nG on V V.J V.J\nG to H J J.V J.V2\nH from G J\nH on J J.V J.V2\n"
        "route V2.J V.J\nH on V2 V2.J V2.J\nH to G J J.V2 J.V\nG from H J\nG on J J.V2 J.V",
    )
    * 2,
}
"""Of each kind, and for each way that servers may lie, the ways out and back. `local`: both ends are on one server."""
TEMPLATES["internet-snat"] = TEMPLATES["internet-gateway"]
