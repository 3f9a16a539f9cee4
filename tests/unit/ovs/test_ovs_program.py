"""Programs that print without end, do not end, or are not there."""

from __future__ import annotations

import sys

import pytest

from vtrace.errors import CannotWorkError
from vtrace.ovs import program
from vtrace.ovs.program import Finished, run_program

pytestmark = pytest.mark.anyio


async def test_what_a_program_said() -> None:
    code = "import sys; print(sys.stdin.read()[::-1], end=''); print('é', file=sys.stderr); sys.exit(3)"
    done = await run_program([sys.executable, "-X", "utf8", "-c", code], stdin="abc")
    assert done == Finished(status=3, stdout="cba", stderr="é\n")


@pytest.mark.parametrize("stream", [1, 2])
async def test_one_that_prints_without_end_is_ended(monkeypatch: pytest.MonkeyPatch, stream: int) -> None:
    monkeypatch.setattr(program, "OUTPUT_MAX_BYTES", 1 << 20)
    code = f"import os\nwhile True: os.write({stream}, bytes(65536))"
    with pytest.raises(CannotWorkError, match="prints without end"):
        await run_program([sys.executable, "-c", code], timeout_s=60)


async def test_one_that_does_not_end_is_ended() -> None:
    with pytest.raises(CannotWorkError, match=r"did not end within 0\.2 s"):
        await run_program([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.2)


async def test_one_that_is_not_there() -> None:
    with pytest.raises(CannotWorkError, match="is missing"):
        await run_program(["no-such-program-of-ours"])
