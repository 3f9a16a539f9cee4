"""The exception tree.

    VTraceError                 anything VTrace reports to its user
    ├── UsageError              wrong usage: exit code 2
    ├── CannotWorkError         can't work here (no root, no lab, database out of reach): exit code 4
    │   ├── BridgeNotUnderstoodError   the layout of a bridge is not one we are sure of
    │   └── RefusedError        could work, but might do harm: the operator has to say yes
    └── ProtocolError           a peer (OpenFlow, OVSDB, unixctl) sent what we can't read

Every error has four fields; its text is made from them: what happened, where, why, and what to do next.
"""

from __future__ import annotations


class VTraceError(Exception):
    """An error with four fields.

    Args:
        what: what went wrong, one sentence without a full stop.
        where: the place (a server, a file, an option), may be empty.
        why: the cause as far as it is known, may be empty.
        next_step: what the user can do about it, may be empty.
    """

    exit_code = 1

    def __init__(self, what: str, where: str = "", why: str = "", next_step: str = "") -> None:
        super().__init__(what, where, why, next_step)
        self.what = what
        self.where = where
        self.why = why
        self.next_step = next_step

    def __str__(self) -> str:
        text = self.what
        if self.where:
            text += f" ({self.where})"
        if self.why:
            text += f": {self.why}"
        if self.next_step:
            text += f". {self.next_step}"
        return text

    def as_dict(self) -> dict[str, str]:
        """The four fields, as the JSON document `{"error": …}` carries them."""
        fields = {"what": self.what, "where": self.where, "why": self.why, "next_step": self.next_step}
        # Names of files may hold bytes that are no text; a document can't.
        return {name: text.encode("utf-8", "backslashreplace").decode() for name, text in fields.items()}


class UsageError(VTraceError):
    """Wrong usage; nothing was changed."""

    exit_code = 2


class CannotWorkError(VTraceError):
    """VTrace can't work here; nothing was changed."""

    exit_code = 4


class BridgeNotUnderstoodError(CannotWorkError):
    """The layout of a bridge could not be established beyond doubt."""


class RefusedError(CannotWorkError):
    """The task could disturb tenant traffic, so it was refused."""


class ProtocolError(VTraceError):
    """A peer sent something that can't be read."""

    exit_code = 4


def first_leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that made a group of concurrent tasks end: one of ours before any other."""
    leaves: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop(0)
        if isinstance(error, BaseExceptionGroup):
            pending.extend(error.exceptions)
        else:
            leaves.append(error)
    return next((leaf for leaf in leaves if isinstance(leaf, VTraceError)), leaves[0])
