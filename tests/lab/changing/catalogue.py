"""The changes that are tried, and what is right to say of each."""

from __future__ import annotations

from changing.steps import (
    bound,
    daemon,
    move,
    nb,
    pause,
    plug,
    remake,
    restart_database,
    run,
    set_nexthop,
    start_controller,
    unplug,
)
from changing.trial import Change

DB1 = ("--from", "red-web1", "--to", "red-db1")
DB2 = ("--from", "red-web1", "--to", "red-db2")
WEB3 = ("--from", "red-web1", "--to", "red-web3")

MIGRATIONS = [
    Change(
        name="vm-to-armed",  # gw1 and hv1 and hv3 have agents
        traffic=DB1,
        task=DB1,
        do=(move("red-db1", "hv3", "hv1"),),
        undo=(move("red-db1", "hv1", "hv3"),),
        says=("red-db1", "hv1"),
        object_types=("Port_Binding",),
    ),
    Change(
        name="vm-to-unarmed",
        traffic=DB1,
        task=DB1,
        do=(move("red-db1", "hv3", "hv2"),),
        undo=(move("red-db1", "hv2", "hv3"),),
        says=("red-db1", "hv2"),
        object_types=("Port_Binding",),
    ),
    Change(
        name="vm-local-to-unarmed",
        traffic=DB2,
        task=DB2,
        do=(move("red-db2", "hv1", "hv2"),),
        undo=(move("red-db2", "hv2", "hv1"),),
        says=("red-db2", "hv2"),
        object_types=("Port_Binding",),
    ),
    Change(
        name="source-to-unarmed",
        bursts=True,
        packets=400,
        loss=("no", "unknown"),
        traffic=DB1,
        task=DB1,
        do=(move("red-web1", "hv1", "hv2"),),
        undo=(move("red-web1", "hv2", "hv1"),),
        says=("red-web1", "hv2"),
        object_types=("Port_Binding",),
    ),
    Change(
        name="source-to-armed",
        bursts=True,
        packets=400,
        loss=("no", "unknown"),
        traffic=DB1,
        task=DB1,
        do=(move("red-web1", "hv1", "hv3"),),
        undo=(move("red-web1", "hv3", "hv1"),),
        says=("red-web1", "hv3"),
        object_types=("Port_Binding",),
    ),
    Change(
        name="additional-chassis",
        slow=True,
        traffic=WEB3,
        task=WEB3,
        do=(
            nb("lsp-set-options", "red-web3", "requested-chassis=hv2,hv3"),
            bound(),
            move("red-web3", "hv2", "hv3"),
            nb("lsp-set-options", "red-web3", "requested-chassis=hv3"),
        ),
        undo=(nb("lsp-set-options", "red-web3"), move("red-web3", "hv3", "hv2")),
        says=("red-web3", "hv3"),
        object_types=("Port_Binding",),
        packets=600,
    ),
    Change(
        name="vm-away-and-back",
        traffic=DB1,
        task=DB1,
        do=(move("red-db1", "hv3", "hv2"), move("red-db1", "hv2", "hv3")),
        undo=(),
        says=(),
        packets=500,
    ),
    Change(
        name="vm-unplugged",
        traffic=DB1,
        task=DB1,
        do=(unplug("red-db1", "hv3"),),
        undo=(plug("red-db1", "hv3"),),
        says=("red-db1 is no longer bound: hv3 gave it up",),
        object_types=("Port_Binding",),
        loss=("yes",),
        patterns=("persistent",),
    ),
]

ROUTE = ("--from", "red-web1", "--to", "red-db1:10.9.1.1")
ALIAS = ("--from", "red-web1", "--to", "red/10.9.1.1")
DROP = 'outport == "red-db1" && udp'

RULES = [
    Change(
        name="acl-added",
        traffic=DB1,
        task=DB1,
        do=(nb("acl-add", "red-db", "to-lport", "1700", DROP, "drop"),),
        undo=(nb("acl-del", "red-db", "to-lport", "1700", DROP),),
        says=("ACL was added to red-db",),
        object_types=("ACL",),
        loss=("yes",),
        patterns=("persistent",),
        codes=("acl_drop",),
    ),
    Change(
        name="acl-added-and-removed",
        traffic=DB1,
        task=DB1,
        do=(
            nb("--wait=hv", "acl-add", "red-db", "to-lport", "1700", DROP, "drop"),
            pause(0.5),
            nb("acl-del", "red-db", "to-lport", "1700", DROP),
        ),
        undo=(),
        says=("ACL was added to red-db", "ACL was removed from red-db"),
        object_types=("ACL",),
        patterns=("transient",),
        codes=("acl_drop",),
    ),
    Change(
        name="policy-added",
        traffic=DB1,
        task=DB1,
        do=(nb("lr-policy-add", "red-router", "1700", "ip4.dst == 10.1.2.11", "drop"),),
        undo=(nb("lr-policy-del", "red-router", "1700"),),
        says=("router policy was added to red-router",),
        object_types=("Logical_Router_Policy",),
        loss=("yes",),
        patterns=("persistent",),
        codes=("policy_route_drop",),
    ),
    Change(
        name="route-removed",
        traffic=ROUTE,
        task=ALIAS,
        do=(nb("lr-route-del", "red-router", "10.9.1.0/24"),),
        undo=(nb("lr-route-add", "red-router", "10.9.1.0/24", "10.1.2.11"),),
        says=("the route 10.9.1.0/24 by 10.1.2.11 of red-router was removed",),
        object_types=("Logical_Router_Static_Route",),
        loss=("yes",),
        patterns=("persistent",),
        codes=("no_route",),
    ),
    Change(
        name="route-removed-and-added",
        traffic=ROUTE,
        task=ALIAS,
        do=(
            nb("--wait=hv", "lr-route-del", "red-router", "10.9.1.0/24"),
            pause(0.4),
            nb("lr-route-add", "red-router", "10.9.1.0/24", "10.1.2.11"),
        ),
        undo=(),
        says=("10.9.1.0/24 by 10.1.2.11 of red-router was removed", "10.9.1.0/24 by 10.1.2.11 of red-router was added"),
        object_types=("Logical_Router_Static_Route",),
        patterns=("transient",),
        codes=("no_route",),
    ),
    Change(
        name="route-nexthop",
        traffic=ROUTE,
        task=ALIAS,
        do=(set_nexthop("10.9.1.0/24", "10.1.2.12", of="red-router"),),
        undo=(set_nexthop("10.9.1.0/24", "10.1.2.11", of="red-router"),),
        says=("the route 10.9.1.0/24 of red-router goes by 10.1.2.12 now",),
        object_types=("Logical_Router_Static_Route",),
        loss=("yes", "unknown"),
        patterns=("persistent", "unclear"),
    ),
    Change(
        name="port-disabled",
        traffic=DB1,
        task=DB1,
        do=(nb("lsp-set-enabled", "red-db1", "disabled"),),
        undo=(nb("lsp-set-enabled", "red-db1", "enabled"),),
        says=("red-db1 was disabled",),
        object_types=("Logical_Switch_Port",),
        loss=("yes",),
        patterns=("persistent",),
        codes=("port_disabled",),
    ),
    Change(
        name="nobodys-business",
        traffic=DB1,
        task=DB1,
        do=(
            move("red-web3", "hv2", "hv3"),
            nb("lr-route-add", "blue-router", "10.77.0.0/24", "10.1.2.11"),
            nb("acl-add", "blue-db", "to-lport", "1700", "ip", "allow"),
            nb("lsp-set-enabled", "red-web2", "disabled"),
        ),
        undo=(
            move("red-web3", "hv3", "hv2"),
            nb("lr-route-del", "blue-router", "10.77.0.0/24"),
            nb("acl-del", "blue-db"),
            nb("lsp-set-enabled", "red-web2", "enabled"),
        ),
        silent=True,
    ),
    Change(
        name="databases-restarted",
        slow=True,
        traffic=DB1,
        task=DB1,
        do=(
            restart_database("nb"),
            restart_database("sb"),
            pause(1.0),
            nb("lr-policy-add", "red-router", "1700", "ip4.dst == 10.1.2.11", "drop"),
        ),
        undo=(nb("lr-policy-del", "red-router", "1700"),),
        says=("router policy was added to red-router",),
        loss=("yes",),
        patterns=("persistent",),
        packets=700,
    ),
    Change(
        name="controller-restarted",
        slow=True,
        traffic=DB1,
        task=DB1,
        do=(
            run("hv1", "ovn-appctl", "-t", "ovn-controller", "exit", "--restart"),
            start_controller("hv1"),
        ),
        undo=(),
        packets=600,
    ),
    Change(
        name="controller-restarted-vm-moves",
        slow=True,
        traffic=DB1,
        task=DB1,
        do=(
            run("hv1", "ovn-appctl", "-t", "ovn-controller", "exit", "--restart"),
            start_controller("hv1"),
            move("red-db1", "hv3", "hv2"),
        ),
        undo=(move("red-db1", "hv2", "hv3"),),
        says=("red-db1",),
        packets=600,
    ),
    Change(
        name="two-at-once",
        traffic=DB1,
        task=DB1,
        do=(
            nb("acl-add", "red-db", "to-lport", "1700", "tcp", "drop"),
            nb("lr-policy-add", "red-router", "1700", "ip4.dst == 10.1.2.12", "drop"),
            move("red-db1", "hv3", "hv2"),
        ),
        undo=(move("red-db1", "hv2", "hv3"), nb("acl-del", "red-db"), nb("lr-policy-del", "red-router", "1700")),
        says=("ACL was added to red-db", "router policy was added to red-router", "red-db1"),
    ),
    Change(
        name="early-move",
        traffic=DB1,
        task=DB1,
        when="task ready",
        do=(move("red-db1", "hv3", "hv2"),),
        undo=(move("red-db1", "hv2", "hv3"),),
        says=("red-db1",),
    ),
    Change(
        name="vm-deleted",
        slow=True,
        traffic=DB1,
        task=DB1,
        do=(nb("lsp-del", "red-db1"),),
        undo=(remake("red-db1", "red-db"),),
        says=("red-db1 was removed",),
        loss=("yes",),
        patterns=("persistent",),
    ),
]

SLB_TRAFFIC = ("--from", "red-client1", "--to", "10.1.9.1", "--dport", "5353", "--flows", "50")
SLB_TASK = ("--from", "red-client1", "--to", "10.1.9.1", "--dport", "5353")
BACKEND_TASK = ("--from", "red-client1", "--to", "red-web3", "--dport", "5353")
THREE = "10.1.2.11:5353,10.1.2.12:5353,10.1.2.13:5353"
TWO = "10.1.2.11:5353,10.1.2.12:5353"
VIP = "10.1.9.1:5353"

BACKENDS = [
    Change(
        name="backend-removed",
        topology="slb",
        traffic=SLB_TRAFFIC,
        task=SLB_TASK,
        do=(nb("set", "Load_Balancer", "dns", f'vips:"{VIP}"="{TWO}"'),),
        undo=(nb("set", "Load_Balancer", "dns", f'vips:"{VIP}"="{THREE}"'),),
        says=("the backend 10.1.2.13:5353 was removed from 10.1.9.1:5353 of dns",),
        object_types=("Load_Balancer",),
    ),
    Change(
        name="backend-added",
        topology="slb",
        traffic=SLB_TRAFFIC,
        task=SLB_TASK,
        before=(nb("set", "Load_Balancer", "dns", f'vips:"{VIP}"="{TWO}"'), bound()),
        do=(nb("set", "Load_Balancer", "dns", f'vips:"{VIP}"="{THREE}"'),),
        undo=(),
        says=("the backend 10.1.2.13:5353 was added to 10.1.9.1:5353 of dns",),
        object_types=("Load_Balancer",),
    ),
    Change(
        name="backend-task-removed",
        slow=True,
        topology="slb",
        traffic=SLB_TRAFFIC,
        task=BACKEND_TASK,
        packets=200,
        do=(nb("set", "Load_Balancer", "dns", f'vips:"{VIP}"="{TWO}"'),),
        undo=(nb("set", "Load_Balancer", "dns", f'vips:"{VIP}"="{THREE}"'),),
        says=("the backend 10.1.2.13:5353 was removed from 10.1.9.1:5353 of dns",),
        object_types=("Load_Balancer",),
        loss=("no", "unknown"),
    ),
    Change(
        name="backend-task-added",
        slow=True,
        topology="slb",
        traffic=SLB_TRAFFIC,
        task=BACKEND_TASK,
        packets=100,
        when="waiting",
        before=(nb("set", "Load_Balancer", "dns", f'vips:"{VIP}"="{TWO}"'), bound()),
        do=(
            pause(0.5),
            nb("set", "Load_Balancer", "dns", f'vips:"{VIP}"="{THREE}"'),
        ),
        undo=(),
        says=("the backend 10.1.2.13:5353 was added to 10.1.9.1:5353 of dns",),
        object_types=("Load_Balancer",),
    ),
    Change(
        name="vip-removed",
        topology="slb",
        traffic=SLB_TRAFFIC,
        task=SLB_TASK,
        do=(nb("lb-del", "dns", VIP),),
        undo=(nb("set", "Load_Balancer", "dns", f'vips:"{VIP}"="{THREE}"'),),
        says=("the load balancer dns lost the VIP 10.1.9.1:5353",),
        object_types=("Load_Balancer",),
        # Connections that conntrack knows may go on to their backends: another VIP has the same address.
        loss=("yes", "no"),
        patterns=("persistent",),
    ),
    Change(
        name="health-offline",
        slow=True,
        topology="slb",
        traffic=SLB_TRAFFIC,
        task=SLB_TASK,
        packets=900,
        do=(
            run(
                "red-web3",
                "nft",
                "table inet t { chain c { type filter hook input priority 0; udp dport 5353 reject; }; }",
            ),
            pause(6.5),
            run("red-web3", "nft", "delete", "table", "inet", "t"),
        ),
        undo=(),
        says=("the health check of 10.1.2.13:5353 behind 10.1.9.1:5353 says",),
        loss=("no", "unknown", "yes"),
    ),
    Change(
        name="backend-moves",
        topology="slb",
        traffic=SLB_TRAFFIC,
        task=SLB_TASK,
        do=(move("red-web3", "hv3", "hv2"),),
        undo=(move("red-web3", "hv2", "hv3"),),
        says=("red-web3",),
        object_types=("Port_Binding",),
    ),
]

OUT = ("--from", "red-web1", "--to", "internet1:198.51.100.10")
OUT_TASK = ("--from", "red-web1", "--to", "198.51.100.10")
IN = ("--from", "internet1", "--to", "red-web1")
IN_TASK = ("--from", "198.51.100.10", "--to", "red-web1")
SHARED = ("--from", "red-web3", "--to", "internet1:198.51.100.10")
SHARED_TASK = ("--from", "red-web3", "--to", "198.51.100.10")

GATEWAYS = [
    Change(
        name="gateway-fails-over-out",
        topology="internet",
        traffic=OUT,
        task=OUT_TASK,
        do=(nb("lrp-set-gateway-chassis", "red-router-public", "gw2", "90"),),
        undo=(nb("lrp-set-gateway-chassis", "red-router-public", "gw2", "10"),),
        says=("the gateway of red-router-public moved from gw1 to gw2",),
        object_types=("Port_Binding",),
    ),
    Change(
        name="gateway-fails-over-in",
        topology="internet",
        traffic=IN,
        task=IN_TASK,
        do=(nb("lrp-set-gateway-chassis", "red-router-public", "gw2", "90"),),
        undo=(nb("lrp-set-gateway-chassis", "red-router-public", "gw2", "10"),),
        says=("the gateway of red-router-public moved from gw1 to gw2",),
        object_types=("Port_Binding",),
    ),
    Change(
        name="gateway-dies-out",
        slow=True,
        hangs=True,
        topology="internet",
        traffic=OUT,
        task=OUT_TASK,
        packets=700,
        do=(daemon("gw1", "ovn-controller", "STOP"), daemon("gw1", "ovs-vswitchd", "STOP")),
        revive=(daemon("gw1", "ovs-vswitchd", "CONT"), daemon("gw1", "ovn-controller", "CONT")),
        undo=(),
        says=("the gateway of red-router-public moved from gw1 to gw2",),
        object_types=("Port_Binding",),
    ),
    Change(
        name="gateway-dies-in",
        slow=True,
        hangs=True,
        topology="internet",
        traffic=IN,
        task=IN_TASK,
        packets=700,
        do=(daemon("gw1", "ovn-controller", "STOP"), daemon("gw1", "ovs-vswitchd", "STOP")),
        revive=(daemon("gw1", "ovs-vswitchd", "CONT"), daemon("gw1", "ovn-controller", "CONT")),
        undo=(),
        says=("the gateway of red-router-public moved from gw1 to gw2",),
        object_types=("Port_Binding",),
    ),
    Change(
        name="floating-removed-out",
        topology="internet",
        traffic=OUT,
        task=OUT_TASK,
        do=(nb("lr-nat-del", "red-router", "dnat_and_snat", "203.0.113.21"),),
        undo=(nb("lr-nat-add", "red-router", "dnat_and_snat", "203.0.113.21", "10.1.1.11"),),
        says=("NAT dnat_and_snat 203.0.113.21 for 10.1.1.11 was removed",),
        object_types=("NAT",),
    ),
    Change(
        name="floating-moves-in",
        topology="internet",
        traffic=IN,
        task=IN_TASK,
        do=(
            nb("lr-nat-del", "red-router", "dnat_and_snat", "203.0.113.21"),
            nb("lr-nat-add", "red-router", "dnat_and_snat", "203.0.113.21", "10.1.1.13"),
        ),
        undo=(
            nb("lr-nat-del", "red-router", "dnat_and_snat", "203.0.113.21"),
            nb("lr-nat-add", "red-router", "dnat_and_snat", "203.0.113.21", "10.1.1.11"),
        ),
        says=("203.0.113.21 for 10.1.1.11 was removed", "203.0.113.21 for 10.1.1.13 was added"),
        object_types=("NAT",),
        slow=True,
    ),
    Change(
        name="source-moves-out",
        bursts=True,
        packets=400,
        loss=("no", "unknown"),
        topology="internet",
        traffic=SHARED,
        task=SHARED_TASK,
        do=(move("red-web3", "hv2", "hv1"),),
        undo=(move("red-web3", "hv1", "hv2"),),
        says=("red-web3", "hv1"),
        object_types=("Port_Binding",),
    ),
]

CUSTOMER = ("--from", "red-web1", "--to", "customer1:10.50.1.10")
CUSTOMER_TASK = ("--from", "red-web1", "--to", "10.50.1.10")
ANNOUNCE = "birdc -s $BIRD_SOCKET {} announce1"

CUSTOMERS = [
    Change(
        name="customer-withdraws",
        topology="datacenter",
        traffic=CUSTOMER,
        task=CUSTOMER_TASK,
        packets=600,
        do=(run("customer1", "sh", "-c", ANNOUNCE.format("disable")),),
        undo=(run("customer1", "sh", "-c", ANNOUNCE.format("enable")), pause(3)),
        says=("the route 10.50.1.0/24 by 192.0.2.2 of red-vbr was removed",),
        object_types=("Logical_Router_Static_Route",),
        loss=("yes",),
        patterns=("persistent",),
        codes=("no_route",),
    ),
    Change(
        name="customer-announces-again",
        slow=True,
        topology="datacenter",
        traffic=CUSTOMER,
        task=CUSTOMER_TASK,
        packets=900,
        do=(
            run("customer1", "sh", "-c", ANNOUNCE.format("disable")),
            # Longer, and the task would have seen enough.
            pause(1.2),
            run("customer1", "sh", "-c", ANNOUNCE.format("enable")),
        ),
        undo=(),
        says=(
            "the route 10.50.1.0/24 by 192.0.2.2 of red-vbr was removed",
            "the route 10.50.1.0/24 by 192.0.2.2 of red-vbr was added",
        ),
        object_types=("Logical_Router_Static_Route",),
        patterns=("transient",),
        codes=("no_route",),
    ),
]


def known() -> dict[str, Change]:
    """All changes by their names."""
    every = (*MIGRATIONS, *RULES, *BACKENDS, *GATEWAYS, *CUSTOMERS)
    return {change.name: change for change in every}
