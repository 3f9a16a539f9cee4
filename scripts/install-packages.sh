#!/usr/bin/env bash
# Installs Debian packages without starting a service, as root: scripts/install-packages.sh PACKAGE…
#
# Services may already run here, an Open vSwitch under production traffic among them. So:
# - packages that are installed are not passed on, and nothing of Open vSwitch or OVN is upgraded or removed;
# - for the time of the installation policy-rc.d forbids every start, stop and restart;
# - the Open vSwitch, OVN and BIRD services that come with a new package stay disabled, so that a reboot starts none.
set -euo pipefail
. "$(dirname "$0")/common.sh"

policy=/usr/sbin/policy-rc.d
saved=$policy.saved-by-vtrace
mark='# VTrace: no service starts while packages are installed; gone afterwards'
forbade=no

# What a run left behind that could not clean up (kill -9, power).
recover_policy() {
    if [ -e "$saved" ] || [ -L "$saved" ]; then
        mv -f "$saved" "$policy"
    elif grep -qsxF "$mark" "$policy"; then
        rm -f "$policy"
    fi
}

policy_forbids_all() {
    local service status
    for service in openvswitch-switch ovn-central ovn-host bird; do
        status=0
        "$policy" "$service" start >/dev/null 2>&1 || status=$?
        [ "$status" -eq 101 ] || return 1
    done
}

forbid_services() {
    if [ -e "$policy" ] || [ -L "$policy" ]; then
        if [ -x "$policy" ] && policy_forbids_all; then return; fi
        mv "$policy" "$saved"
    fi
    forbade=yes
    printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$policy"
    chmod 755 "$policy"
}

is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# Services a new package of Open vSwitch or OVN has enabled for the next boot.
leave_disabled() {
    local package script unit units
    for package in "${new_daemons[@]}"; do
        is_installed "$package" || continue
        mapfile -t units < <(dpkg -L "$package" | sed -nE 's#^(/usr)?/lib/systemd/system/([^/@]+\.service)$#\2#p')
        for unit in "${units[@]}"; do
            if command -v systemctl >/dev/null; then
                systemctl --quiet disable "$unit" >/dev/null 2>&1 || true
            else
                DPKG_MAINTSCRIPT_PACKAGE=$package deb-systemd-helper disable "$unit" >/dev/null 2>&1 || true
            fi
        done
        script=${package/bird2/bird}
        if [ -e "/etc/init.d/$script" ] && command -v update-rc.d >/dev/null; then
            update-rc.d "$script" disable >/dev/null 2>&1 || true
        fi
    done
}

finish() {
    leave_disabled
    if [ "$forbade" = yes ]; then recover_policy; fi
}

apt() {
    local verb=$1
    shift
    apt-get "$verb" -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 "$@"
}

# simulate PACKAGE…: what apt would do; fails if it cannot.
simulate() { apt install --simulate --no-install-recommends --no-upgrade --no-remove "$@" 2>&1; }

plan_for() {
    if compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null && plan=$(simulate "$@"); then return; fi
    say "Reading the package lists"
    apt update -qq
    plan=$(simulate "$@") || die "apt can't install ${*}" "$plan"
}

is_root || die "scripts/install-packages.sh has to run as root"
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 NEEDRESTART_MODE=l

packages=()
for name in "$@"; do is_installed "$name" || packages+=("$name"); done
new_daemons=()
for name in openvswitch-switch ovn-central ovn-host bird2; do is_installed "$name" || new_daemons+=("$name"); done
if [ ${#packages[@]} -eq 0 ]; then exit 0; fi

recover_policy
plan_for "${packages[@]}"
changed=$(grep -E '^(Inst (openvswitch|ovn|python3-openvswitch)[^ ]* \[|Remv )' <<<"$plan" || true)
if [ -n "$changed" ]; then
    die "installing ${packages[*]} would change an Open vSwitch or OVN that is installed here" "$changed" \
        "VTrace leaves those alone. Install the packages yourself, or use another machine."
fi

trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
forbid_services
install() { apt install -qq -y --no-install-recommends --no-upgrade --no-remove -o Dpkg::Use-Pty=0 "${packages[@]}" >"$log" 2>&1; }
log=$(mktemp)
# The lists may be older than the archive: once more with new ones.
if ! install; then
    apt update -qq
    install || die "apt could not install ${packages[*]}" "$(tail -n 20 "$log")" "The whole output: $log"
fi
rm -f "$log"
