"""The page of the published format lists every field, with its type and group."""

from __future__ import annotations

import re
from pathlib import Path

from vtrace.model.record_schema import FIELDS, SCHEMA_VERSION

PAGE = Path(__file__).parents[3] / "docs/records.md"


def test_the_page_lists_every_field_in_order() -> None:
    text = PAGE.read_text()
    section = text[text.index("## Fields") : text.index("## Two forms")]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (\w+) \| (\S.*) \|$", section, re.MULTILINE)
    assert [(name, type_, group) for name, type_, group, _ in rows] == [(f.name, str(f.type), f.group) for f in FIELDS]
    assert f"Version {SCHEMA_VERSION}." in section
