"""Which packets a fault is for: as OVN's matches, Open vSwitch's and ping's words say it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from crossing.ways import Ip, Way

Proto = Literal["udp", "tcp", "icmp"]


@dataclass(frozen=True)
class Scope:
    """The packets of one case: a way, a protocol, and the port of the side that answers."""

    way: Way
    ip: Ip
    proto: Proto
    port: int

    @property
    def src(self) -> str:
        return self.way.ends[self.ip][0]

    @property
    def dst(self) -> str:
        return self.way.ends[self.ip][1]

    @property
    def host(self) -> str:
        """The destination as a prefix."""
        return f"{self.dst}/{32 if self.ip == 4 else 128}"

    def match(self) -> str:
        """In OVN's words (ovn-sb(5))."""
        ends = f"ip{self.ip}.src == {self.src} && ip{self.ip}.dst == {self.dst}"
        if self.proto == "icmp":
            return f"{ends} && icmp{self.ip}"
        side = "dst" if self.way.direction == "forward" else "src"
        return f"{ends} && {self.proto}.{side} == {self.port}"

    def openflow(self) -> str:
        """In Open vSwitch's words (ovs-fields(7))."""
        ends = f"nw_src={self.src},nw_dst={self.dst}" if self.ip == 4 else f"ipv6_src={self.src},ipv6_dst={self.dst}"
        version = "" if self.ip == 4 else "6"
        if self.proto == "icmp":
            return f"icmp{version},{ends}"
        side = "dst" if self.way.direction == "forward" else "src"
        return f"{self.proto}{version},{ends},tp_{side}={self.port}"

    def elsewhere(self) -> Scope:
        """The same for packets that nobody sends."""
        if self.proto != "icmp":
            return replace(self, port=self.port + 1000)
        return replace(self, proto="udp", port=9)
