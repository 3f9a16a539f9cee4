"""Rows come from outside: what is concluded from them is held against its types, and what can't be read is an error.

OVN's schema says of which type a column is. A server that sends something else, or leaves a column out, is broken or
lies; its rows are not to be met as a `KeyError` somewhere in a task.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import msgspec

from vtrace.errors import ProtocolError

_P = ParamSpec("_P")
_T = TypeVar("_T")
_UNREADABLE = (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError, OverflowError)


def understood(read: Callable[_P, Awaitable[_T]]) -> Callable[_P, Coroutine[Any, Any, _T]]:
    """A reader of rows that raises ProtocolError where these are not what OVN's schema says."""

    @functools.wraps(read)
    async def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return checked(await read(*args, **kwargs))
        except _UNREADABLE as error:
            raise ProtocolError(
                "The OVN databases hold rows that can't be read",
                "",
                f"{type(error).__name__}: {error}"[:300],
                "Check that both remotes are those of an OVN release that docs/compatibility.md lists",
            ) from error

    return guarded


def checked(value: _T) -> _T:
    """The value, whose structs, if it is some or several, hold what their types say.

    Raises:
        msgspec.ValidationError: a ValueError; they do not.
    """
    for one in value if isinstance(value, tuple | list) else (value,):
        if isinstance(one, msgspec.Struct):
            msgspec.convert(msgspec.to_builtins(one), type(one))
    return value
