"""The cloud, by arithmetic: no device is stored, each is computed from its number.

Every VPC has the same shape: switches joined by a router, a gateway router to the customer's data center behind a join
switch, a load balancer, a port on its region's provider network, and a transit switch to a neighbor VPC. Many VPCs use
the same addresses; nothing but the datapath's tunnel key tells them apart.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from vtrace.synthetic.addresses import GLOBAL, MULTICAST, ULA, address_texts, v6
from vtrace.synthetic.chance import Bools, Chance, Ints, Purpose
from vtrace.synthetic.options import OTHER_DATAPATHS, Options

# So many VMs of a switch may take part in tasks; those whose numbers differ by half of it share a server.
VMS = 128
PLACES = VMS // 2
# Tunnel keys of a switch's ports: the router's, then VMs'. Of a provider or peering switch the localnet port first.
ROUTER_KEY, LOCALNET_KEY, FIRST_VM_KEY = 1, 1, 2
_FIRST_PROVIDER_KEY = 2
_PROVIDER_KEYS = 30_000
# Of so many servers one is a gateway, and a region has two of them as soon as it has this many servers.
_SERVERS_PER_GATEWAY = 16
_TWO_GATEWAYS = 6
# Second byte of the inner IPv4 addresses and second group of the IPv6 ones: so many VPCs have addresses of their own.
ADDRESS_PLANS = 4
_FLOATING_V4 = 198 << 24 | 18 << 16
_SHARED_V4 = 203 << 24 | 113 << 8
_OUTSIDE_V4 = 198 << 24 | 51 << 16 | 100 << 8
_ENCAP_V4 = 10 << 24 | 250 << 16
_LOCAL_MAC = 0x0A << 40
OUTSIDE_MAC = 0x02 << 40 | 0x5E0001
BROADCAST_MAC = (1 << 48) - 1


class Cloud:
    """Names, numbers and places of everything in the cloud. Methods take and give arrays.

    Attributes:
        chassis: names of all servers' chassis; encaps: their tunnel addresses; regions: their regions' names. Each
            ends with an empty text, so that -1 names none.
        size: how many servers there are.
    """

    def __init__(self, options: Options, chance: Chance) -> None:
        self._options = options
        self._chance = chance
        self.size = options.servers
        numbers = np.arange(options.servers)
        self.region_of = numbers * options.regions // options.servers
        self._first = np.searchsorted(self.region_of, np.arange(options.regions + 1)).astype(np.int64)
        servers = np.diff(self._first)
        least = np.where(servers >= _TWO_GATEWAYS, 2, 1)
        self._gateways = np.maximum(least, servers // _SERVERS_PER_GATEWAY)
        place = numbers - self._first[self.region_of]
        is_gateway = place < self._gateways[self.region_of]
        words = [f"{'gw' if gateway else 'hv'}{n + 1}" for n, gateway in zip(numbers, is_gateway, strict=True)]
        self.chassis = pa.array([*words, ""])
        self.encaps = pa.concat_arrays([address_texts(_ENCAP_V4 + numbers + 1), pa.array([""])])
        self.regions = pa.array([*(f"region{n + 1}" for n in self.region_of), ""])

    # --- servers -----------------------------------------------------------------------------------------

    def home(self, vpc: Ints) -> Ints:
        """The region of a VPC, and of its neighbor."""
        return vpc // 2 % self._options.regions

    def server(self, vpc: Ints, vm: Ints, moved: Ints) -> Ints:
        """Where a VM is. Every eighth place of a VPC is in any region, the others in its own."""
        place, two = vm % PLACES, vpc // 2
        strays = self._chance.below(8, Purpose.SERVER, two, place) == 0
        anywhere = self._chance.below(self._options.regions, Purpose.SERVER, two, place, np.ones_like(place))
        region = np.where(strays, anywhere, self.home(vpc))
        free = self._first[region + 1] - self._first[region] - self._gateways[region]
        chosen = self._chance.below(free, Purpose.SERVER, two, place, np.full_like(place, 2))
        # A VM that moves goes to another server of its region.
        step = 1 + self._chance.below(free - 1, Purpose.MOVE, two, place)
        chosen = (chosen + np.where(moved > 0, step, 0)) % free
        return self._first[region] + self._gateways[region] + chosen

    def gateway(self, vpc: Ints, number: Ints) -> Ints:
        """One of the gateways of a VPC's region; where there are two the numbers 0 and 1 are different ones."""
        region = self.home(vpc)
        first = self._chance.below(self._gateways[region], Purpose.GATEWAY, vpc)
        return self._first[region] + (first + number) % self._gateways[region]

    def third(self, vpc: Ints, one: Ints, two: Ints, gateway: Ints, number: Ints) -> Ints:
        """A server that is neither of two; the gateway where the draw hits one of them."""
        region = self.home(vpc)
        free = self._first[region + 1] - self._first[region] - self._gateways[region]
        chosen = self._first[region] + self._gateways[region]
        chosen = chosen + self._chance.below(free, Purpose.FLOOD, vpc, number)
        return np.where((chosen == one) | (chosen == two), gateway, chosen)

    def ofport(self, server: Ints, *what: Ints) -> Ints:
        """The OpenFlow port of something at a server's bridge."""
        return 1 + self._chance.below(900, Purpose.OFPORT, server, *what)

    # --- logical devices ---------------------------------------------------------------------------------

    def _base(self, vpc: Ints) -> Ints:
        return 1 + vpc * (self._options.switches + OTHER_DATAPATHS)

    def switch(self, vpc: Ints, number: Ints) -> Ints:
        """The tunnel key of a VPC's switch."""
        return self._base(vpc) + number

    def other(self, vpc: Ints, number: int) -> Ints:
        """Of one of a VPC's further datapaths: router, join switch, gateway router, peering switch, second gateway
        router."""
        return self._base(vpc) + self._options.switches + number

    def transit(self, vpc: Ints) -> Ints:
        """Of the transit switch of a VPC and its neighbor."""
        return self.other(vpc - vpc % 2, 5)

    def provider(self, vpc: Ints) -> Ints:
        """Of the provider switch of a VPC's region."""
        last = self._base(np.array(self._options.vpcs))
        return last + self.home(vpc)

    def provider_key(self, vpc: Ints) -> Ints:
        """The tunnel key of a VPC's port at the provider switch."""
        return _FIRST_PROVIDER_KEY + vpc % _PROVIDER_KEYS

    # --- addresses ---------------------------------------------------------------------------------------

    @staticmethod
    def mac(datapath: Ints, key: Ints) -> Ints:
        """The Ethernet address at a port."""
        return _LOCAL_MAC + (datapath << 15) + key

    def inner(self, vpc: Ints, switch: Ints, host: Ints, six: Bools) -> Ints:
        """An address inside a VPC; switch and host from 1."""
        plan = 1 + vpc % ADDRESS_PLANS
        return np.where(six, v6(ULA, plan, switch, host), 10 << 24 | plan << 16 | switch << 8 | host)

    def floating(self, vpc: Ints, vm: Ints, six: Bools) -> Ints:
        """The address of a VM outside."""
        number = 1 + (vpc * 251 + vm) % 65_000
        return np.where(six, v6(GLOBAL, 0xFF, 0, number), _FLOATING_V4 + number)

    def shared(self, vpc: Ints, six: Bools) -> Ints:
        """The address outside that a VPC's VMs share."""
        number = 10 + vpc % 240
        return np.where(six, v6(GLOBAL, 0xFE, 0, number), _SHARED_V4 + number)

    def outside(self, number: Ints, six: Bools) -> Ints:
        """An address of the Internet."""
        return np.where(six, v6(GLOBAL, 0x100, 0, 1 + number), _OUTSIDE_V4 + 1 + number % 254)

    def customer(self, number: Ints, six: Bools) -> Ints:
        """An address of a customer's data center."""
        v4 = 10 << 24 | 50 << 16 | (1 + number // 200) << 8 | (10 + number % 200)
        return np.where(six, v6(ULA, 0x50, 1 + number // 200, 0x10 + number % 200), v4)

    @staticmethod
    def to_all(subnet: Ints, six: Bools) -> Ints:
        """The address of all hosts of an address's subnet."""
        return np.where(six, v6(MULTICAST, 0, 0, 1), subnet | 0xFF)
