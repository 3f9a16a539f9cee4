#!/usr/bin/env bash
# Makes a folder with the Open vSwitch and OVN of another Debian release, for `vtrace lab up --release`. As root.
#
#   scripts/release-folder.sh bookworm|trixie [FOLDER]
#
# The folder (default /var/tmp/vtrace-release-RELEASE) is made once, by debootstrap, and kept; remove it when you are
# done. Packages are unpacked only: none of their scripts runs, so that no daemon is started and nothing of this
# machine's is touched. VTRACE_BARE_MIRROR names another mirror. The last lines say what is in it.
set -euo pipefail
. "$(dirname "$0")/common.sh"

[ $# -ge 1 ] || die "usage: scripts/release-folder.sh bookworm|trixie [FOLDER]"
release=$1
folder=${2:-/var/tmp/vtrace-release-$release}
is_root || die "making a folder of another release takes root"
command -v debootstrap >/dev/null || die "debootstrap is missing" "apt-get install -y debootstrap"

# Two callers at once: the second waits, and finds it made.
exec 9>"$folder.lock"
flock 9
if [ ! -e "$folder" ]; then
    say "debootstrap $release into $folder"
    rm -rf "$folder.partial"
    trap 'rm -rf "$folder.partial"' EXIT
    debootstrap --foreign --variant=minbase --include=openvswitch-switch,ovn-central,ovn-host,iproute2 \
        "$release" "$folder.partial" ${VTRACE_BARE_MIRROR:+"$VTRACE_BARE_MIRROR"} >"$folder.log" 2>&1 \
        || die "debootstrap failed" "$(tail -n 5 "$folder.log")"
    for package in "$folder.partial"/var/cache/apt/archives/*.deb; do
        dpkg-deb --extract "$package" "$folder.partial"
    done
    rm -rf "$folder.partial"/var/cache/apt/archives/*.deb "$folder.partial/debootstrap"
    mv "$folder.partial" "$folder"
fi
rm -f "$folder.lock"
# Debian keeps ovs-vswitchd apart, for its alternatives.
for program in /usr/lib/openvswitch-switch/ovs-vswitchd ovn-controller ovn-northd; do
    chroot "$folder" "$program" --version | head -n 1
done
