"""The faults `lab break` knows: data. What each one does is in fault_steps.py."""

from __future__ import annotations

import msgspec

from vtrace.errors import UsageError


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A KEY=VALUE of a fault; one without a default must be given unless it is optional."""

    name: str
    text: str
    default: str | None = None
    optional: bool = False
    choices: tuple[str, ...] = ()


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A named fault; one that `needs_ovn` changes a row of OVN's databases."""

    name: str
    text: str
    parameters: tuple[Parameter, ...]
    needs_ovn: bool = True


_MATCH = (
    Parameter(name="from", text="the sending VM"),
    Parameter(name="to", text="the receiving VM, VM:address, or an address"),
    Parameter(name="ip", text="IP version", default="4", choices=("4", "6")),
    Parameter(name="proto", text="protocol; all if not given", optional=True, choices=("tcp", "udp", "icmp")),
    Parameter(name="dport", text="destination port", optional=True),
)
_DIRECTION = Parameter(
    name="direction",
    text="where it acts: at the sender's switch port or at the receiver's",
    default="to-lport",
    choices=("from-lport", "to-lport"),
)
_ACL = (
    *_MATCH,
    _DIRECTION,
    Parameter(name="priority", text="of the ACL", default="1000"),
    Parameter(
        name="stateful",
        text="yes: an allow-related ACL below it brings connection tracking in",
        default="no",
        choices=("yes", "no"),
    ),
)
_WIRE = (
    Parameter(name="a", text="one server"),
    Parameter(name="b", text="the other server"),
    Parameter(name="direction", text="which packets: both ways or one", default="both", choices=("both", "a-b", "b-a")),
)
# By chance: with several steady streams on the wire, every n-th packet may always be of the same one.
_MODE = Parameter(name="mode", text="by chance, or every n-th", default="random", choices=("random", "every"))
_ROUTE_TO = Parameter(name="to", text="the VM whose alias is cut off, VM:address, or an address")
_ROUTER = Parameter(name="router", text="the logical router", optional=True)

FAULTS = (
    Fault(name="acl_drop", text="an ACL drops the packets", parameters=_ACL),
    Fault(name="acl_reject", text="an ACL rejects the packets (RST or ICMP unreachable)", parameters=_ACL),
    Fault(
        name="no_route",
        text="the static route to a VM's alias is removed",
        parameters=(_ROUTE_TO, _ROUTER, Parameter(name="ip", text="IP version", default="4", choices=("4", "6"))),
    ),
    Fault(
        name="blackhole_route",
        text="a discard route stands before the way to an address",
        parameters=(
            _ROUTE_TO,
            _ROUTER,
            Parameter(name="ip", text="IP version", default="4", choices=("4", "6")),
            Parameter(name="prefix", text="the route's prefix; the one address if not given", optional=True),
        ),
    ),
    Fault(
        name="port_security",
        text="a port's port_security names another address than the VM uses",
        parameters=(
            Parameter(name="vm", text="the VM"),
            Parameter(name="address", text="the address that stays allowed", default="192.0.2.1"),
        ),
    ),
    Fault(
        name="qos_rate_limit",
        text="a QoS row limits the rate",
        parameters=(
            *_MATCH,
            _DIRECTION,
            Parameter(name="rate", text="kbit/s", default="10"),
            Parameter(name="burst", text="kbit", default="10"),
            Parameter(name="priority", text="of the row", default="1000"),
        ),
    ),
    Fault(
        name="foreign_flow_entry",
        needs_ovn=False,
        text="an OpenFlow entry, put in by hand, drops the packets",
        parameters=(
            *_MATCH,
            Parameter(name="node", text="the server; the sender's if not given", optional=True),
            Parameter(name="table", text="OpenFlow table", default="0"),
            Parameter(name="priority", text="of the entry", default="40000"),
            Parameter(name="cookie", text="of the entry", default="0"),
            Parameter(
                name="scope",
                text="auto: in_port in table 0 at the sender, else the switch's metadata (with OVN); none: all VPCs",
                default="auto",
                choices=("auto", "none"),
            ),
            Parameter(name="switch", text="whose metadata; the sender's if not given", optional=True),
        ),
    ),
    Fault(name="physical_loss", text="a wire drops all tunnel packets", parameters=_WIRE, needs_ovn=False),
    Fault(
        name="partial_loss",
        needs_ovn=False,
        text="a wire drops some of the tunnel packets",
        parameters=(*_WIRE, Parameter(name="ratio", text="one packet in this many", default="3"), _MODE),
    ),
    Fault(
        name="transient_loss",
        needs_ovn=False,
        text="a wire drops all tunnel packets for a while, then forwards again by itself",
        parameters=(*_WIRE, Parameter(name="seconds", text="how long", default="1")),
    ),
    Fault(
        name="port_disabled",
        text="a VM's logical port is administratively disabled",
        parameters=(Parameter(name="vm", text="the VM"),),
    ),
)


def find(name: str) -> Fault:
    """The fault of that name.

    Raises:
        UsageError: there is none.
    """
    for fault in FAULTS:
        if fault.name == name:
            return fault
    raise UsageError(f"there is no fault {name!r}", "lab break", f"there is {' '.join(f.name for f in FAULTS)}")


def values_of(fault: Fault, given: list[str]) -> dict[str, str]:
    """The values of a fault's parameters: those given as KEY=VALUE, and the defaults.

    Raises:
        UsageError: an unknown, repeated, missing or impossible one.
    """
    values = {parameter.name: parameter.default for parameter in fault.parameters if parameter.default is not None}
    known = {parameter.name: parameter for parameter in fault.parameters}
    seen: set[str] = set()
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or key not in known or key in seen:
            raise UsageError(
                f"{text!r} is not a parameter of {fault.name}, or is given twice",
                "",
                f"KEY=VALUE, of {' '.join(known)}",
            )
        if known[key].choices and value not in known[key].choices:
            raise UsageError(f"{key}={value} is not possible", fault.name, f"one of {' '.join(known[key].choices)}")
        seen.add(key)
        values[key] = value
    for parameter in fault.parameters:
        if parameter.name not in values and not parameter.optional:
            raise UsageError(f"{fault.name} needs {parameter.name}=", "lab break", parameter.text)
    return values


def listing() -> str:
    """What `lab break --list` prints."""
    lines = []
    for fault in FAULTS:
        lines.append(f"{fault.name}: {fault.text}")
        for parameter in fault.parameters:
            default = f" (default {parameter.default})" if parameter.default is not None else ""
            default = " (optional)" if parameter.optional else default
            choices = f" [{'|'.join(parameter.choices)}]" if parameter.choices else ""
            lines.append(f"    {parameter.name}={choices}  {parameter.text}{default}")
    return "\n".join(lines)
