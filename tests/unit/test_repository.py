"""Rules about the tree itself: lengths, names, links, pins, decisions."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vtrace.lab.programs import OVN_PACKAGES, PACKAGES

ROOT = Path(__file__).parents[2]
PURE_STAGES = ("model", "color", "match", "reconstruct", "attribute")
ADR_SECTIONS = ("## Context", "## Decision", "## Consequences", "## Status")
# What a module of a pure stage must not call, beside the modules that import-linter forbids.
IMPURE_CALLS = (
    "open",
    "print",
    "input",
    "now",
    "utcnow",
    "today",
    "read_text",
    "write_text",
    "read_bytes",
    "write_bytes",
)


def tracked_files() -> list[Path]:
    """The files git knows, and new ones it does not ignore; every file but caches where there is no git."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        folders = ("src", "tests", "docs", "scripts", "bench", ".ci")
        found = [path for folder in folders for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts]
        return [path for path in found + list(ROOT.glob("*")) if path.is_file()]
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


FILES = tracked_files()
PYTHON_FILES = [path for path in FILES if path.suffix == ".py"]
MARKDOWN_FILES = [path for path in FILES if path.suffix == ".md"]


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """The name and the number of lines of every function of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def test_lengths_stay_below_the_limits() -> None:
    limits = pyproject()["tool"]["vtrace"]["lengths"]
    too_long = {}
    for path in PYTHON_FILES:
        lines = len(path.read_text().splitlines())
        if lines > limits["file_lines"]:
            too_long[name_of(path)] = lines
        for function, length in functions(path):
            if length > limits["function_lines"]:
                too_long[f"{name_of(path)}:{function}"] = length
    excused = limits["exceptions"]
    assert all(isinstance(reason, str) and len(reason) > 10 for reason in excused.values())
    unexcused = {place: length for place, length in too_long.items() if place not in excused}
    assert not unexcused, f"too long (split them, or give a reason in [tool.vtrace.lengths.exceptions]): {unexcused}"
    assert not set(excused) - set(too_long), f"no longer too long: {set(excused) - set(too_long)}"


def test_files_are_named_after_a_noun() -> None:
    vague = [name_of(path) for path in PYTHON_FILES if path.stem in ("utils", "util", "helpers", "misc", "common")]
    assert not vague


def test_pure_stages_do_no_input_or_output() -> None:
    found = []
    for stage in PURE_STAGES:
        for path in sorted((ROOT / "src/vtrace" / stage).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    called = node.func
                    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
                    if name in IMPURE_CALLS:
                        found.append(f"{name_of(path)}:{node.lineno} calls {name}")
    assert not found


def test_unit_tests_mirror_the_source() -> None:
    tests = {
        path.relative_to(ROOT / "tests/unit").parent
        for path in PYTHON_FILES
        if path.is_relative_to(ROOT / "tests/unit")
    }
    strangers = [folder.as_posix() for folder in tests if not (ROOT / "src/vtrace" / folder).is_dir()]
    assert not strangers, f"tests/unit has folders that src/vtrace has not: {strangers}"


def imported_packages(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"vtrace"}


def test_every_imported_package_is_a_declared_dependency() -> None:
    project = pyproject()["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {re.split(r"[^A-Za-z0-9_.-]", line)[0].replace("-", "_").lower() for group in groups for line in group}
    source = [path for path in PYTHON_FILES if path.is_relative_to(ROOT / "src")]
    undeclared = {f"{name_of(path)}: {name}" for path in source for name in imported_packages(path) - declared}
    assert not undeclared


@pytest.mark.parametrize(
    "name", ["requirements-build.txt", "requirements.txt", "requirements-dev.txt", "requirements-fuzz.txt"]
)
def test_requirements_are_pinned_by_hash_and_name_no_registry(name: str) -> None:
    text = (ROOT / name).read_text()
    entries = re.split(r"\n(?=[a-z0-9])", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    for entry in entries:
        assert re.match(r"[a-z0-9_.-]+==[^ ]+", entry), f"not pinned: {entry.splitlines()[0]}"
        assert "--hash=sha256:" in entry, f"without hash: {entry.splitlines()[0]}"
    assert "://" not in text
    assert "index-url" not in text


def test_requirements_hold_what_pyproject_asks_for() -> None:
    project = pyproject()["project"]

    def pinned(name: str) -> dict[str, str]:
        found = re.findall(r"^([a-z0-9_.-]+)==([^ ;]+)", (ROOT / name).read_text(), re.MULTILINE)
        return dict(found)

    run, dev = pinned("requirements.txt"), pinned("requirements-dev.txt")
    asked = {re.split(r"[><=\[ ]", line)[0].lower() for line in project["dependencies"]}
    extras = project["optional-dependencies"]
    lines = [line for line in (*extras["dev"], *extras["bench"]) if not line.startswith(project["name"])]
    asked_dev = {re.split(r"[><=\[ ]", line)[0].lower() for line in lines}
    assert asked <= run.keys(), "run scripts/pin-requirements"
    assert asked_dev <= dev.keys(), "run scripts/pin-requirements"
    assert run.items() <= dev.items(), "run scripts/pin-requirements"


def test_every_program_the_lab_runs_is_installed_by_setup() -> None:
    rows = [
        line.split() for line in (ROOT / "scripts/packages.txt").read_text().splitlines() if not line.startswith("#")
    ]
    installed = {row[0] for row in rows if row[2] == "demo"}
    assert {*PACKAGES, *OVN_PACKAGES} <= installed


def test_links_between_the_documents_lead_somewhere() -> None:
    dead = []
    for path in MARKDOWN_FILES:
        text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" in target or target.startswith(("#", "mailto:")):
                continue
            if not (path.parent / target.split("#")[0]).exists():
                dead.append(f"{name_of(path)}: {target}")
    assert not dead


@pytest.mark.parametrize("page", ["threat-model.md", "safety.md"])
def test_pages_name_tests_that_there_are(page: str) -> None:
    named = re.findall(r"`([a-z0-9/_]+\.py): (test_\w+)`", (ROOT / "docs" / page).read_text())
    assert len(named) > 20
    missing = [
        f"{file}: {test}"
        for file, test in named
        if not re.search(rf"^(?:async )?def {test}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE)
    ]
    assert not missing


def test_decisions_are_numbered_and_complete() -> None:
    decisions = sorted((ROOT / "docs/adr").glob("*.md"))
    numbers = []
    for path in decisions:
        matched = re.fullmatch(r"(\d{4})(-[a-z0-9]+)+", path.stem)
        assert matched, f"{path.name} is not NNNN-verb-noun.md"
        numbers.append(int(matched[1]))
        text = path.read_text()
        missing = [section for section in ADR_SECTIONS if section not in text]
        assert not missing, f"{path.name} lacks {missing}"
    assert numbers == list(range(1, len(numbers) + 1))


def test_scripts_can_be_started() -> None:
    started = [*ROOT.glob("scripts/*"), ROOT / ".ci/run"]
    for path in started:
        first_line = path.read_text().splitlines()[0]
        assert bool(path.stat().st_mode & 0o100) == first_line.startswith("#!"), f"mode of {name_of(path)}"


def test_the_tree_names_no_place_outside_itself() -> None:
    pattern = re.compile("/".join(["", "work", "(main|shared)"]) + r"\b|/home/\w+/\w+")
    text_files = [path for path in FILES if path.suffix in (".md", ".py", ".sh", ".toml", ".txt", "")]
    found = [name_of(path) for path in text_files if pattern.search(path.read_text(errors="replace"))]
    assert not [name for name in found if name != "scripts/bare-machine.sh"]
