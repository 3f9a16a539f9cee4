"""How a command is ended from outside: in every way as by Ctrl-C, so that everything of ours is removed first."""

from __future__ import annotations

import os
import signal


def end_as_by_ctrl_c() -> None:
    """Makes SIGTERM and SIGHUP do what Ctrl-C does.

    A shell without job control starts what is to run in the background with SIGINT ignored; it has its handler again.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: os.kill(os.getpid(), signal.SIGINT))
