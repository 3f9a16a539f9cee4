#!/usr/bin/env bash
# Installs what is missing on this machine, and builds .venv at the project's root.
#
#   scripts/setup.sh demo    what the product and its lab need
#   scripts/setup.sh test    that, and what the tests need
#   scripts/setup.sh fuzz    atheris besides, into a .venv that is there
#
# Nothing that is there already is touched. A second run finds nothing to do and calls no package manager.
set -euo pipefail
. "$(dirname "$0")/common.sh"

want=${1:-demo}
case $want in
    demo) requirements=requirements.txt ;;
    test) requirements=requirements-dev.txt ;;
    fuzz) requirements=requirements-fuzz.txt ;;
    *) die "unknown set '$want'" "Say demo, test or fuzz." ;;
esac
venv=$root_dir/.venv

# The first Python that is new enough and can make a virtual environment; nothing if there is none.
find_python() {
    local candidate
    for candidate in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
}

missing_packages() {
    local program package group
    while read -r program package group; do
        case $program in '' | '#'*) continue ;; esac
        if [ "$group" = test ] && [ "$want" = demo ]; then continue; fi
        command -v "$program" >/dev/null || printf '%s\n' "$package"
    done <"$root_dir/scripts/packages.txt"
    if [ -z "$(find_python)" ]; then printf '%s\n' python3 python3-venv; fi
}

is_debian() {
    command -v apt-get >/dev/null && command -v dpkg-query >/dev/null && grep -qsE '^ID(_LIKE)?=.*debian' /etc/os-release
}

install_packages() {
    local packages
    mapfile -t packages < <(missing_packages | sort -u)
    if [ ${#packages[@]} -eq 0 ]; then return; fi
    local missing="Missing (Debian's package names): ${packages[*]}"
    is_debian || die "this is not Debian, so nothing can be installed from here" "$missing" \
        "Install them (Python 3.11 or later) by your system's own means and start again."
    can_be_root || die "installing packages takes root, and there is no sudo" "$missing" \
        "As root: scripts/install-packages.sh ${packages[*]}"
    say "Installing ${packages[*]} (services are not started)"
    as_root bash "$root_dir/scripts/install-packages.sh" "${packages[@]}"
    mapfile -t packages < <(missing_packages | sort -u)
    if [ ${#packages[@]} -gt 0 ]; then
        die "the packages were installed, and something is still missing" "Missing: ${packages[*]}" \
            "Python has to be 3.11 or later: Debian 12 or newer."
    fi
}

python_is_usable() {
    "$venv/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# A virtual environment holds absolute paths: in a copied or moved directory it is useless.
was_moved() { [ -e "$venv/.vtrace-project" ] && ! grep -qxF "$root_dir" "$venv/.vtrace-project"; }

# unchanged STAMP TEXT: whether TEXT is what the stamp recorded last time.
unchanged() { [ "$(cat "$venv/$1" 2>/dev/null)" = "$2" ]; }

build_venv() {
    local pinned project
    cd "$root_dir"
    pinned=$(sha256sum requirements-build.txt "$requirements")
    project=$(printf '%s\n' "$root_dir" && sha256sum pyproject.toml)
    unset PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX
    export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
    local pip=("$venv/bin/python" -m pip install --quiet)
    if ! python_is_usable || was_moved; then
        say "Making .venv with $(find_python)"
        rm -rf "$venv"
        "$(find_python)" -m venv "$venv"
    fi
    if ! unchanged ".vtrace-pinned-$want" "$pinned"; then
        say "Installing the Python packages of $requirements into .venv"
        # The build tool is pinned too: pip would fetch any version of it for each source package.
        "${pip[@]}" --require-hashes -r requirements-build.txt
        "${pip[@]}" --require-hashes --no-build-isolation -r "$requirements"
        printf '%s\n' "$pinned" >"$venv/.vtrace-pinned-$want"
    fi
    if ! unchanged .vtrace-project "$project"; then
        "${pip[@]}" --no-deps --no-build-isolation -e .
        printf '%s\n' "$project" >"$venv/.vtrace-project"
    fi
    compile_kernel
}

# Else the first diagnosis would have to wait for it.
compile_kernel() {
    if "$venv/bin/python" -c 'import sys; from vtrace import kept_code; sys.exit(not kept_code.is_whole())'; then return; fi
    say "Compiling what reconstructs paths (half a minute, once)"
    "$venv/bin/python" -m vtrace.reconstruct.warm
}

install_packages
build_venv
