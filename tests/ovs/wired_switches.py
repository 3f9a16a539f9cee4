"""Two private switches without OVN, joined by a wire: dummy devices whose frames go through a socket.

    vm1 ── br0 of left ══ wire ══ br0 of right ── vm2

Whatever leaves by a port is in its capture file.
"""

from __future__ import annotations

import struct
from pathlib import Path

from private_switch import Switch, wait_until

VM1, WIRE, OTHER = 11, 12, 13
VM1_MAC, VM2_MAC = "0a:00:00:00:00:01", "0a:00:00:00:00:02"
VM1_IP, VM2_IP = "10.0.0.1", "10.0.0.2"


def packet(
    *,
    tos: int = 0,
    number: int = 7,
    source: str = VM1_MAC,
    destination: str = VM2_MAC,
    dport: int = 80,
    back: bool = False,
) -> bytes:
    """A UDP packet from vm1 to vm2, or what vm2 answers (RFC 791, RFC 768; no UDP checksum)."""
    length = 28 + 16
    ends, ports = [VM1_IP, VM2_IP], (5000, dport)
    if back:
        source, destination, ports = VM2_MAC, VM1_MAC, (dport, 5000)
        ends.reverse()
    addresses = b"".join(bytes(map(int, end.split("."))) for end in ends)
    words = struct.unpack("!10H", struct.pack("!BBHHHBBH", 0x45, tos, length, number, 0, 64, 17, 0) + addresses)
    total = sum(words)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    ip = struct.pack("!BBHHHBBH", 0x45, tos, length, number, 0, 64, 17, checksum) + addresses
    macs = bytes.fromhex((destination + source).replace(":", ""))
    return macs + b"\x08\x00" + ip + struct.pack("!HHHH", *ports, length - 20, 0) + bytes(16)


def tos_of(frame: bytes) -> int:
    return frame[15]


class Wired:
    """Both switches. Ports of each: the VM (11), the wire (12), one more (13)."""

    def __init__(self, folder: Path) -> None:
        self.left, self.right = (self._switch(folder / name) for name in ("left", "right"))
        self._socket = folder / "wire"
        self._port(self.left, "wire", WIRE, f"pstream=punix:{self._socket}")
        wait_until("the wire's socket", self._socket.exists)
        for switch in (self.left, self.right):
            self._port(switch, "vm", VM1)
            self._port(switch, "other", OTHER)
        self.join()

    def _switch(self, folder: Path) -> Switch:
        folder.mkdir()
        return Switch(folder)

    def _port(self, switch: Switch, name: str, ofport: int, options: str = "") -> None:
        words = ["add-port", "br0", name, "--", "set", "interface", name, "type=dummy", f"ofport_request={ofport}"]
        words += [f"options:tx_pcap={switch.rundir}/{name}.pcap", *([f"options:{options}"] if options else [])]
        switch.vsctl(*words)

    def join(self) -> None:
        """Plugs the wire in at the right."""
        self._port(self.right, "wire", WIRE, f"stream=unix:{self._socket}")
        wait_until("the wire", self._is_up)

    def cut(self) -> None:
        """Lets the wire lose everything, with both its ports up."""
        self.left.vsctl("set", "interface", "wire", f"options:pstream=punix:{self._socket}.cut")

    def mend(self) -> None:
        self.left.vsctl("set", "interface", "wire", f"options:pstream=punix:{self._socket}")
        wait_until("the wire", self._is_up)

    def _is_up(self) -> bool:
        before = self.seen(self.right, "vm")
        self.right.ofctl("add-flow", "in_port=12,actions=output:11")
        self.left.ofctl("packet-out", f"in_port=11 packet={packet().hex()} actions=output:12")
        return len(self.seen(self.right, "vm")) > len(before)

    def reset(self) -> None:
        """Empties both bridges and their captures."""
        for switch in (self.left, self.right):
            for what in ("del-flows", "del-groups", "del-meters"):
                switch.ofctl(what)
        self._offsets = {
            (s.rundir, n): len(frames(s, n)) for s in (self.left, self.right) for n in ("vm", "wire", "other")
        }

    def seen(self, switch: Switch, port: str) -> list[bytes]:
        """Frames that left by a port since the last `reset`."""
        return frames(switch, port)[getattr(self, "_offsets", {}).get((switch.rundir, port), 0) :]

    def stop(self) -> None:
        self.left.stop()
        self.right.stop()


def frames(switch: Switch, port: str) -> list[bytes]:
    """All frames in a port's capture file (pcap: a header of 24 bytes, then 16 bytes before each frame)."""
    path = Path(switch.rundir) / f"{port}.pcap"
    data = path.read_bytes() if path.exists() else b""
    found, position = [], 24
    while position + 16 <= len(data):
        (length,) = struct.unpack_from("=I", data, position + 8)
        if position + 16 + length > len(data):
            break
        found.append(data[position + 16 : position + 16 + length])
        position += 16 + length
    return found
