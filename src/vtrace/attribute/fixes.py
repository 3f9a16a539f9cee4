"""The command that shows or removes a cause."""

from __future__ import annotations

from vtrace.model.inspection import ResolvedStep
from vtrace.model.inventory import OvnObject


def acl(row: OvnObject) -> str:
    """Removes an ACL from the switch or port group that has it."""
    owner = row.row.get("owner", "")
    if not owner:
        return f"ovn-nbctl list ACL {row.row_uuid}"
    kind = "--type=port-group " if row.row.get("owner_table") == "Port_Group" else ""
    direction, priority, match = (row.row.get(name, "") for name in ("direction", "priority", "match"))
    return f"ovn-nbctl {kind}acl-del {owner} {direction} {priority} '{match}'"


def qos(row: OvnObject) -> str:
    """Removes a QoS row from its switch."""
    owner = row.row.get("owner", "")
    if not owner:
        return f"ovn-nbctl list QoS {row.row_uuid}"
    direction, priority, match = (row.row.get(name, "") for name in ("direction", "priority", "match"))
    return f"ovn-nbctl qos-del {owner} {direction} {priority} '{match}'"


def port_security(port: str) -> str:
    """Shows what a port may send and receive, and how to allow more."""
    return f"ovn-nbctl lsp-get-port-security {port}; ovn-nbctl lsp-set-port-security {port} 'MAC IP…'"


def delete_entry(server: str, step: ResolvedStep, bridge: str = "br-int") -> str:
    """Removes one OpenFlow entry, by hand, on its server."""
    match = f",{step.match}" if step.match else ""
    cookie = f",cookie=0x{step.cookie:x}/-1"
    entry = f"table={step.table},priority={step.priority}{match}{cookie}"
    return f"on {server}: ovs-ofctl --strict del-flows {bridge} '{entry}'"
