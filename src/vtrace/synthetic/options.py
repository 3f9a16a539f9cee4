"""What is asked of the generator, and what can't be."""

from __future__ import annotations

import msgspec

from vtrace.errors import UsageError
from vtrace.synthetic.kinds import KINDS

MAX_SERVERS = 100_000
# VNIs of Geneve have 24 bits, and each logical datapath has one.
MAX_DATAPATHS = (1 << 24) - 1
# Datapaths of a VPC beside its switches: two routers, the switches between and behind them, half a transit switch.
OTHER_DATAPATHS = 6
MAX_SWITCHES = 250
MAX_PAIRS = 65_536
MAX_TASKS = 1_000_000
MAX_RECORDS = 10_000_000_000
MIN_SERVERS_OF_REGION = 3
# Of each `packets.GROUP` packets the first has a key of its own.
MAX_IDENTICAL = 0.75


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """A synthetic cloud, its tasks, and what goes wrong.

    Attributes:
        servers, regions, vpcs: of the cloud; switches: of each VPC.
        tasks: how many; pairs: of each task; packets: colored packets of each task, of all its pairs together.
        records: instead of `packets`: about so many records in all; 0: as `packets` says.
        kinds: kinds of traffic (`kinds.KINDS`).
        faults: share of the pairs whose packets, all or some of them, are dropped or lost between servers.
        floods, loops: share of the pairs that are flooded, that go round between two routers.
        moves: share of the tasks during which VMs move to other servers.
        identical: share of the packets that have the key of an earlier one.
        log_loss, repeat: share of the records that are lost on their way to us, that come twice.
        late: share of the agents' deliveries that come long after the others.
        shuffle: whether records come in no order at all.
        skew_s: by how much wall clocks are wrong, and the steps by which some are set, at most.
        restarts: share of the servers whose agent restarts in the middle of each task's time.
    """

    servers: int = 100
    regions: int = 3
    vpcs: int = 50
    switches: int = 4
    tasks: int = 20
    pairs: int = 4
    packets: int = 1000
    records: int = 0
    seed: int = 1
    kinds: tuple[str, ...] = KINDS
    faults: float = 0.0
    floods: float = 0.0
    loops: float = 0.0
    moves: float = 0.0
    identical: float = 0.0
    log_loss: float = 0.0
    repeat: float = 0.0
    late: float = 0.0
    shuffle: bool = False
    skew_s: float = 0.0
    restarts: float = 0.0

    def check(self) -> Options:
        """The options themselves.

        Raises:
            UsageError: one of them, or two together, can't be.
        """
        bounds = (
            ("servers", MIN_SERVERS_OF_REGION, MAX_SERVERS),
            ("regions", 1, MAX_SERVERS),
            ("vpcs", 2, MAX_DATAPATHS),
            ("switches", 2, MAX_SWITCHES),
            ("tasks", 1, MAX_TASKS),
            ("pairs", 1, MAX_PAIRS),
            ("packets", 1, MAX_RECORDS),
            ("records", 0, MAX_RECORDS),
            ("seed", 0, (1 << 63) - 1),
            ("skew_s", 0, 10 * 366 * 86400),
        )
        for name, low, high in bounds:
            if not low <= getattr(self, name) <= high:
                raise _out_of_range(name, getattr(self, name), f"{low:,} to {high:,}")
        for name in ("faults", "floods", "loops", "moves", "identical", "log_loss", "repeat", "late", "restarts"):
            most = MAX_IDENTICAL if name == "identical" else 1.0
            if not 0 <= getattr(self, name) <= most:
                raise _out_of_range(name, getattr(self, name), f"a share, from 0 to {most:g}")
        self._check_together()
        return self

    def _check_together(self) -> None:
        if self.servers < MIN_SERVERS_OF_REGION * self.regions:
            why = f"a region has a gateway and two servers for VMs at least; {self.regions} regions were asked for"
            raise UsageError(f"{self.servers} servers are too few", "--servers", why, "Ask for more, or fewer regions")
        datapaths = self.vpcs * (self.switches + OTHER_DATAPATHS) + self.regions
        if datapaths > MAX_DATAPATHS:
            why = f"they have {datapaths:,} switches and routers, and there are {MAX_DATAPATHS:,} tunnel keys"
            raise UsageError(f"{self.vpcs} VPCs are too many", "--vpcs", why, "Ask for fewer, or fewer --switches")
        if self.floods + self.loops > 1:
            raise UsageError("floods and loops take more than all pairs", "--floods, --loops", "", "Ask for fewer")
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            what = f"there is no kind of traffic {unknown[0]!r}" if unknown else "no kind of traffic is named"
            raise UsageError(what, "--kinds", f"there is {' '.join(KINDS)}", "Name some of them")


def _out_of_range(name: str, value: object, bounds: str) -> UsageError:
    option = f"--{name.removesuffix('_s').replace('_', '-')}"
    return UsageError(
        f"{option} {value} is out of range", option, f"it has to be {bounds}", "See vtrace generate --help"
    )
