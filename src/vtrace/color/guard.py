"""The guard bits: how an entry of ours looks a packet up a second time without meeting itself again.

Two bits of a register hold the stage that a packet has passed in this logical datapath (`registry.Stage`). With OVN
it is reg10: OVN sets it to 0 when the packet crosses into the next logical datapath, so that each of them is seen
once.
"""

from __future__ import annotations

from vtrace.color.registry import Stage
from vtrace.model.openflow import GuardBits


def load(bits: GuardBits, stage: Stage) -> str:
    """The action that notes the stage."""
    return f"load:0x{stage:x}->NXM_NX_REG{bits.register}[{bits.lsb}..{bits.lsb + 1}]"


def match_run(generation: int, pair: int) -> str:
    """Matches every packet in table 0, where reg8 and reg9 are 0, with masks that no other run and pair has.

    Two runs that color the same packets would have one and the same entry without it, and the later would replace
    the earlier. With it both are there; one of them wins until it has its packets, then the other.
    """
    return f"reg8=0/0x{pair + 1:x},reg9=0/0x{generation:x}"


def match_none(bits: GuardBits) -> str:
    """Matches packets that have passed no hook yet."""
    return f"reg{bits.register}=0/0x{3 << bits.lsb:x}"


def match_stage(bits: GuardBits, stage: Stage) -> str:
    """Matches packets of one stage that is not NONE."""
    return f"reg{bits.register}=0x{stage << bits.lsb:x}/0x{3 << bits.lsb:x}"


def match_before_remote_output(bits: GuardBits) -> str:
    """Matches packets of stage NONE and TABLE_0."""
    return f"reg{bits.register}=0/0x{2 << bits.lsb:x}"


def matches_before_log_to_physical(bits: GuardBits) -> tuple[str, str]:
    """Two matches that together mean: any stage but LOG_TO_PHYSICAL."""
    return match_before_remote_output(bits), match_stage(bits, Stage.REMOTE_OUTPUT)
