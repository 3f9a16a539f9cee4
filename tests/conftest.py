"""Live tests that fail are tried a second time; that they did is told, and only few may.

A live test runs daemons of a real overlay on a machine that others use too: one in some hundred of them may fail
for what neither the test nor VTrace did. Each such failure is printed whole at the end, to be looked into.
"""

from __future__ import annotations

from pathlib import Path

import pytest

LIVE = ("lab", "ovs")
MOST_TRIED_AGAIN = 3


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).parts[0] in LIVE:
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if len(_tried_again(session.config)) > MOST_TRIED_AGAIN:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    tried_again = _tried_again(config)
    for report in tried_again:
        terminalreporter.section(f"failed at first, tried again: {report.nodeid}")
        terminalreporter.write_line(report.longreprtext)
    if len(tried_again) > MOST_TRIED_AGAIN:
        terminalreporter.section(f"{len(tried_again)} tests failed at first: more than {MOST_TRIED_AGAIN}", red=True)


def _tried_again(config: pytest.Config) -> list[pytest.TestReport]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return [] if reporter is None else list(reporter.stats.get("rerun", []))
