#!/usr/bin/env bash
# Runs pytest as root (the ovs and lab tests need it): scripts/run-tests.sh PATH-OR-OPTION…
#
# The fault matrix is long, so an ordinary run takes a sample of it. The sample is drawn with VTRACE_SAMPLE_SEED, by
# default made from the commit: one commit always runs the same sample, and another commit another one.
set -euo pipefail
. "$(dirname "$0")/common.sh"
cd "$root_dir"

if [ -z "${VTRACE_SAMPLE_SEED:-}" ]; then
    commit=$(git rev-parse HEAD 2>/dev/null || echo 0)
    VTRACE_SAMPLE_SEED=$((16#${commit:0:8}))
fi
if [ "${VTRACE_SOAK:-0}" = 1 ]; then
    say "The whole fault matrix (VTRACE_SOAK=1)"
else
    say "A sample of the fault matrix: VTRACE_SAMPLE_SEED=$VTRACE_SAMPLE_SEED (the whole: make soak)"
fi
can_be_root || die "these tests need root, and there is no sudo" "Without root: make lint unit"

variables=(VTRACE_SAMPLE_SEED="$VTRACE_SAMPLE_SEED" VTRACE_SOAK="${VTRACE_SOAK:-0}")
variables+=(VTRACE_SURVIVAL="${VTRACE_SURVIVAL:-}" VTRACE_SURVIVAL_ANY="${VTRACE_SURVIVAL_ANY:-}")
if ! is_root; then
    # Nothing of root's stays behind in the user's tree.
    scratch=$(mktemp -d)
    trap 'sudo rm -rf "$scratch"' EXIT
    variables+=(PYTHONDONTWRITEBYTECODE=1 HYPOTHESIS_STORAGE_DIRECTORY="$scratch/hypothesis"
        PYTEST_ADDOPTS="-p no:cacheprovider ${PYTEST_ADDOPTS:-}")
fi
as_root "${variables[@]}" .venv/bin/python -m pytest "$@"
