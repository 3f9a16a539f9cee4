"""Reads the inventory file of a cloud without OVN (docs/plain-ovs.md): TOML, strict.

Every error names the file and the key: `cloud.toml: link[2].ends[0].port`.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vtrace.errors import UsageError
from vtrace.model.plain import PlainCloud, PlainEndpoint, PlainLink, PlainServer, PortRef

LINK_KINDS = ("tunnel", "patch", "wire")
DEFAULT_RUNDIR = "/var/run/openvswitch"
# Some ten thousand endpoints.
MOST_BYTES = 8 << 20
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def read(path: str) -> PlainCloud:
    """Reads and checks a file.

    Raises:
        UsageError: it can't be read, or says something that makes no sense.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        text = content.decode("utf-8")
    except (OSError, ValueError) as error:
        raise UsageError("The inventory file can't be read", path, str(error), "Give --inventory FILE") from error
    if len(content) > MOST_BYTES:
        raise UsageError("The inventory file is too large", path, f"it has more than {MOST_BYTES:,} bytes", "")
    return parse(text, path)


def parse(text: str, path: str) -> PlainCloud:
    """Reads the file's text; see `read`."""
    try:
        root = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # Numbers of thousands of digits, and brackets nested as deep, are none of TOML's own errors.
        raise UsageError("The inventory file is no TOML", path, str(error), "See docs/plain-ovs.md") from error
    table = _Table(path, "", root)
    servers = tuple(_server(found) for found in table.tables("server"))
    endpoints = tuple(_endpoint(found) for found in table.tables("endpoint"))
    links = tuple(_link(found) for found in table.tables("link"))
    table.done()
    cloud = PlainCloud(servers=servers, endpoints=endpoints, links=links, path=path)
    _check(cloud)
    return cloud


class _Table:
    """A TOML table that knows where it stands and complains of keys that nobody read."""

    def __init__(self, path: str, key: str, values: Mapping[str, Any]) -> None:
        self.path = path
        self.key = key
        self._values = dict(values)

    def error(self, name: str, why: str) -> UsageError:
        return wrong(self.path, f"{self.key}.{name}" if self.key else name, why)

    def tables(self, name: str) -> list[_Table]:
        """The tables of `[[name]]`."""
        found = self._values.pop(name, [])
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise self.error(name, f"write each as [[{name}]]")
        return [_Table(self.path, f"{self.key}.{name}[{n}]".lstrip("."), item) for n, item in enumerate(found)]

    def text(self, name: str, default: str | None = None) -> str:
        value = self._values.pop(name, default)
        if value is None:
            raise self.error(name, "is missing")
        if not isinstance(value, str) or (not value and default is None):
            raise self.error(name, f"is {value!r}, and must be a text")
        return value

    def whole(self, name: str, low: int, high: int) -> int:
        value = self._values.pop(name, 0)
        if not isinstance(value, int) or isinstance(value, bool) or (value and not low <= value <= high):
            raise self.error(name, f"is {value!r}, and must be a number from {low} to {high}")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._values.pop(name, None)
        if not isinstance(value, list) or not value or not all(isinstance(item, str) and item for item in value):
            raise self.error(name, "must be a list of texts with at least one in it")
        return tuple(value)

    def done(self) -> None:
        """Raises UsageError for a key that is not known."""
        for name in self._values:
            raise self.error(name, "is no key that VTrace knows")


def wrong(path: str, key: str, why: str) -> UsageError:
    return UsageError("The inventory file is not right", f"{path}: {key}", why, "See docs/plain-ovs.md")


def _server(table: _Table) -> PlainServer:
    server = PlainServer(
        name=table.text("name"),
        rundir=table.text("rundir", DEFAULT_RUNDIR),
        bridges=table.texts("bridges"),
        region=table.text("region", ""),
        address=table.text("address", ""),
    )
    if server.address:
        _address(table, "address", server.address)
    if len(set(server.bridges)) != len(server.bridges):
        raise table.error("bridges", "names a bridge twice")
    table.done()
    return server


def _endpoint(table: _Table) -> PlainEndpoint:
    endpoint = PlainEndpoint(
        name=table.text("name"),
        at=PortRef(server=table.text("server"), bridge=table.text("bridge"), port=table.text("port")),
        mac=table.text("mac").lower(),
        addresses=tuple(str(_address(table, "addresses", text)) for text in table.texts("addresses")),
        vlan=table.whole("vlan", 1, 4094),
        vpc=table.text("vpc", ""),
    )
    if not _MAC.fullmatch(endpoint.mac):
        raise table.error("mac", f"is {endpoint.mac!r}, and must be a MAC address")
    table.done()
    return endpoint


def _address(table: _Table, name: str, text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise table.error(name, f"{text!r} is no IP address") from None


def _link(table: _Table) -> PlainLink:
    kind = table.text("kind")
    if kind not in LINK_KINDS:
        raise table.error("kind", f"is {kind!r}, and must be one of {', '.join(LINK_KINDS)}")
    ends = table.tables("ends")
    if len(ends) != 2:
        raise table.error("ends", f"are {len(ends)}, and must be two")
    refs = []
    for end in ends:
        refs.append(PortRef(server=end.text("server"), bridge=end.text("bridge"), port=end.text("port")))
        end.done()
    table.done()
    return PlainLink(kind=kind, ends=(refs[0], refs[1]))


def _check(cloud: PlainCloud) -> None:
    """What holds between the tables."""
    path = cloud.path
    if not cloud.servers:
        raise wrong(path, "server", "there is none")
    for what, names in (("server", [s.name for s in cloud.servers]), ("endpoint", [e.name for e in cloud.endpoints])):
        for number, name in _twice(names):
            raise wrong(path, f"{what}[{number}].name", f"{name!r} is there twice")
    for number, name in _twice([e.at for e in cloud.endpoints]):
        raise wrong(path, f"endpoint[{number}].port", f"{name} is the port of another endpoint")
    bridges = {(server.name, bridge) for server, bridge in cloud.bridges()}
    ends = [(f"link[{n}].ends[{m}]", end) for n, link in enumerate(cloud.links) for m, end in enumerate(link.ends)]
    places = [(f"endpoint[{n}]", e.at) for n, e in enumerate(cloud.endpoints)] + ends
    servers = {server.name for server in cloud.servers}
    for key, at in places:
        if at.server not in servers:
            raise wrong(path, f"{key}.server", f"there is no server {at.server!r}")
        if (at.server, at.bridge) not in bridges:
            raise wrong(path, f"{key}.bridge", f"the server {at.server!r} has no bridge {at.bridge!r}")
    taken = {endpoint.at for endpoint in cloud.endpoints}
    for key, end in ends:
        if end in taken:
            raise wrong(path, f"{key}.port", f"{end} is the port of an endpoint or of another link")
        taken.add(end)
    for number, link in enumerate(cloud.links):
        one, two = link.ends
        if (one.server, one.bridge) == (two.server, two.bridge):
            raise wrong(path, f"link[{number}]", "both ends are at one bridge")
        if link.kind == "patch" and one.server != two.server:
            raise wrong(path, f"link[{number}].kind", "a patch joins two bridges of one server")


def _twice(names: Sequence[object]) -> Iterator[tuple[int, object]]:
    seen = set[object]()
    for number, name in enumerate(names):
        if name in seen:
            yield number, name
        seen.add(name)
