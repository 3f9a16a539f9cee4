"""All targets."""

from __future__ import annotations

import command_targets
import openflow_targets
import ovsdb_targets
import record_targets
import text_targets
from fuzzing import Target

ALL: tuple[Target, ...] = (
    *openflow_targets.TARGETS,
    *text_targets.TARGETS,
    *ovsdb_targets.TARGETS,
    *record_targets.TARGETS,
    *command_targets.TARGETS,
)
