"""A second port that claims the receiver's addresses. The row that was written last wins (OVN 23.03)."""

from __future__ import annotations

import json

from faults.catalogue import ANYWHERE, Build, Entry, nb
from faults.facts import Facts
from faults.model import Do, Expect, Fault, Pair, Row

RIVAL = "rival"


def address_conflict(pair: Pair, facts: Facts, what: str) -> Fault:
    """The rival claims the receiver's MAC, IP address or both; in the near-miss it has addresses of its own."""
    server = next(s for s in ("hv2", "hv3") if s != pair.destination_server)
    mac = facts.port_security[pair.destination].split()[0]
    ips = [facts.pair(pair.placement, 4).dst, facts.pair(pair.placement, 6).dst]
    own = ("0a:00:00:00:77:77", "10.1.1.177" if pair.ip == 4 else "fd00:1:1::b1")
    addresses = " ".join((mac if "mac" in what else own[0], pair.dst if "ip" in what else own[1]))

    def plug(text: str) -> tuple[Do, ...]:
        port = ("add-port", "br-int", RIVAL, "--", "set", "Interface", RIVAL, "type=internal")
        row = f"addresses={json.dumps(text)}"
        return (
            nb("lsp-add", pair.destination_switch, RIVAL, "--", "set", "Logical_Switch_Port", RIVAL, row),
            Do(server, ("ovs-vsctl", *port, f"external_ids:iface-id={RIVAL}")),
            Do(server, ("ip", "link", "set", RIVAL, "up")),
            # ovn-nbctl refuses what somebody has already: as any other client of the database would write it.
            nb("set", "Logical_Switch_Port", pair.destination, 'addresses="0a:00:00:00:77:78"'),
            nb("set", "Logical_Switch_Port", pair.destination, f"addresses={json.dumps(' '.join((mac, *ips)))}"),
        )

    unplug = (nb("lsp-del", RIVAL), Do(server, ("ovs-vsctl", "del-port", "br-int", RIVAL)))
    return Fault(
        f"address_conflict_{what}",
        inject=plug(addresses),
        heal=unplug,
        expect=Expect(
            "dropped",
            server,
            pair.destination_switch,
            code="address_conflict",
            row=Row("Logical_Switch_Port", f"name={RIVAL}"),
            object_words=(RIVAL, pair.destination),
            evidence_words=(mac if "mac" in what else pair.dst,),
        ),
        near=plug(" ".join(own)),
        near_heal=unplug,
        decoy=False,
    )


def _conflict(what: str) -> Build:
    return lambda pair, facts: address_conflict(pair, facts, what)


# Among VMs of one switch the MAC address decides; a router looks the MAC address of an IP address up.
CONFLICTS: tuple[Entry, ...] = (
    Entry("address_conflict_mac", _conflict("mac"), ANYWHERE),
    Entry("address_conflict_mac_ip", _conflict("mac_ip"), ANYWHERE),
    Entry("address_conflict_ip", _conflict("ip"), ("routed-remote", "routed-local")),
)
