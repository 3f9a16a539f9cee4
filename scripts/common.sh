# shellcheck shell=bash
# Sourced by the other scripts: where the project is, how to speak, how to become root.

root_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Debian leaves the system directories out of an ordinary user's PATH; Open vSwitch, nft and ethtool live there.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

say() { printf '%s\n' "==> $*" >&2; }

die() {
    printf '%s\n' "error: $1" >&2
    shift
    if [ $# -gt 0 ]; then printf '       %s\n' "$@" >&2; fi
    exit 1
}

is_root() { [ "$(id -u)" -eq 0 ]; }

can_be_root() { is_root || command -v sudo >/dev/null; }

# as_root COMMAND…: runs it as root; NAME=VALUE words may come first.
as_root() {
    if is_root; then env "$@"; else sudo env "PATH=$PATH" "$@"; fi
}
