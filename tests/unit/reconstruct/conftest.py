"""Every implementation behind the seam `vtrace.reconstruct.schema` has to pass these tests."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest

from vtrace.reconstruct import plain
from vtrace.reconstruct.schema import Reconstruction

IMPLEMENTATIONS: dict[str, Callable[[pa.Table], Reconstruction]] = {"plain": plain.reconstruct}


@pytest.fixture(params=sorted(IMPLEMENTATIONS), scope="session")
def implementation(request: pytest.FixtureRequest) -> Callable[[pa.Table], Reconstruction]:
    return IMPLEMENTATIONS[request.param]
