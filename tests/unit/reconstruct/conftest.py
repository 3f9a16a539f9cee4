"""Every implementation behind the seam `vtrace.reconstruct.schema` has to pass these tests."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest
import reference_plain

from vtrace.reconstruct import whole
from vtrace.reconstruct.schema import Reconstruction

IMPLEMENTATIONS: dict[str, Callable[[pa.Table], Reconstruction]] = {
    "reference": reference_plain.reconstruct,
    "kernel": whole.reconstruct,
}


@pytest.fixture(params=sorted(IMPLEMENTATIONS), scope="session")
def implementation(request: pytest.FixtureRequest) -> Callable[[pa.Table], Reconstruction]:
    return IMPLEMENTATIONS[request.param]
