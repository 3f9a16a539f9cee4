#!/usr/bin/env bash
# Runs a command in a fresh clone of this repository on a bare Debian: what a new user would see. As root.
#
#   scripts/bare-machine.sh [--fresh] [--user] [--pivot] bookworm|trixie COMMAND…
#   scripts/bare-machine.sh --fresh trixie make demo
#
#   --fresh   start again from the bare machine; without it packages and clone of the last run are still there
#   --user    as an ordinary user with sudo
#   --pivot   make the folder the root of its mount namespace, as a container does; without it the folder is
#             entered with chroot
#
# The machine is a folder made by debootstrap, under VTRACE_BARE_DIR (default /var/tmp); the bare one is kept beside
# it. It shares this machine's kernel and network; mounts and processes are its own and end with the command. The
# clone has what is committed, nothing else. This machine's ways to the network (apt.conf.d, pip.conf, resolv.conf,
# local certificates, proxy variables) are copied into the folder.
set -euo pipefail
. "$(dirname "$0")/common.sh"

fresh=no user=no enter=chroot
while [ $# -gt 0 ]; do
    case $1 in
        --fresh) fresh=yes ;;
        --user) user=yes ;;
        --pivot) enter=pivot ;;
        *) break ;;
    esac
    shift
done
[ $# -ge 2 ] || die "usage: scripts/bare-machine.sh [--fresh] [--user] [--pivot] bookworm|trixie COMMAND…"
release=$1
shift
is_root || die "making a bare machine takes root"
command -v debootstrap >/dev/null || die "debootstrap is missing" "apt-get install -y debootstrap"

folder=${VTRACE_BARE_DIR:-/var/tmp}/vtrace-bare-$release
bare=$folder.pristine

make_bare() {
    [ -e "$bare" ] && return
    say "debootstrap $release into $bare"
    rm -rf "$bare.partial"
    debootstrap --variant=minbase "$release" "$bare.partial" ${VTRACE_BARE_MIRROR:+"$VTRACE_BARE_MIRROR"} >"$folder.log" 2>&1 \
        || die "debootstrap failed" "$(tail -n 5 "$folder.log")"
    rm -rf "$bare.partial"/var/cache/apt/archives/*.deb
    mv "$bare.partial" "$bare"
}

copy_network_ways() {
    local path
    for path in /etc/resolv.conf /etc/hosts /etc/apt/apt.conf.d /etc/pip.conf /usr/local/share/ca-certificates; do
        if [ -e "$path" ]; then
            mkdir -p "$folder$(dirname "$path")"
            cp -rL --remove-destination "$path" "$folder$(dirname "$path")/"
        fi
    done
    # pip.conf and the variables below may name the bundle of certificates.
    if [ -e /etc/ssl/certs/ca-certificates.crt ] && [ ! -e "$folder/etc/ssl/certs/ca-certificates.crt" ]; then
        mkdir -p "$folder/etc/ssl/certs"
        cp -L /etc/ssl/certs/ca-certificates.crt "$folder/etc/ssl/certs/"
    fi
}

make_bare
if [ "$fresh" = yes ]; then rm -rf "$folder"; fi
if [ ! -e "$folder" ]; then
    cp -a --reflink=auto "$bare" "$folder"
    copy_network_ways
fi
git -C "$root_dir" bundle create -q "$folder/opt/vtrace.bundle" HEAD "$(git -C "$root_dir" symbolic-ref -q HEAD || echo HEAD)"

environment=(HOME=/root TERM="${TERM:-dumb}" LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin)
for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY SSL_CERT_FILE PIP_CERT PIP_INDEX_URL \
    PIP_DEFAULT_TIMEOUT VTRACE_SAMPLE_SEED VTRACE_SOAK; do
    if [ -n "${!name:-}" ]; then environment+=("$name=${!name}"); fi
done

# Inside the machine: what README says, then the command.
inside=$(
    cat <<'INSIDE'
set -eu
user=$1; shift
took() { echo "==> [bare machine] $1: $(($(date +%s) - $2)) s" >&2; }
start=$(date +%s)
if ! command -v git >/dev/null || ! command -v make >/dev/null; then
    { apt-get update && apt-get install -y git make; } >/tmp/readme-line-1.log 2>&1 || { tail /tmp/readme-line-1.log; exit 1; }
    took "apt-get update && apt-get install -y git make" "$start"
fi
if [ "$user" = yes ]; then
    command -v sudo >/dev/null || apt-get install -y -qq sudo >/dev/null 2>&1
    id tester >/dev/null 2>&1 || { useradd -m -s /bin/bash tester; echo 'tester ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/tester; }
fi
cat >/tmp/as-user.sh <<'USER'
set -eu
clone=$HOME/vtrace
if [ -d "$clone/.git" ]; then
    git -C "$clone" fetch -q /opt/vtrace.bundle HEAD && git -C "$clone" reset -q --hard FETCH_HEAD
else
    git clone -q /opt/vtrace.bundle "$clone"
fi
cd "$clone"
echo "==> [bare machine] $(. /etc/os-release; echo "$PRETTY_NAME"), commit $(git rev-parse --short HEAD): $*" >&2
"$@"
USER
start=$(date +%s)
status=0
if [ "$user" = yes ]; then
    setpriv --reuid tester --regid tester --init-groups env HOME=/home/tester USER=tester bash /tmp/as-user.sh "$@" || status=$?
else
    bash /tmp/as-user.sh "$@" || status=$?
fi
took "$* (exit code $status)" "$start"
exit "$status"
INSIDE
)

# Mounts are private, and when the command ends every process it left ends too (it is init of its process namespace).
# shellcheck disable=SC2016
env -i "${environment[@]}" unshare --mount --pid --ipc --uts --fork --kill-child --propagation private bash -eu -c '
    enter=$1 folder=$2 inside=$3 user=$4
    shift 4
    mount --bind "$folder" "$folder"
    mount -t proc proc "$folder/proc"
    mount --rbind /sys "$folder/sys"
    mount --rbind /dev "$folder/dev"
    mount -t tmpfs tmpfs "$folder/run"
    mount -t tmpfs tmpfs "$folder/tmp"
    hostname vtrace-bare
    grep -q vtrace-bare "$folder/etc/hosts" || echo 127.0.1.1 vtrace-bare >>"$folder/etc/hosts"
    cd "$folder"
    if [ "$enter" = pivot ]; then
        mkdir -p mnt/outside
        pivot_root . mnt/outside
        umount -l /mnt/outside
        exec bash -c "$inside" inside "$user" "$@"
    fi
    exec chroot . /bin/bash -c "$inside" inside "$user" "$@"
' outside "$enter" "$folder" "$inside" "$user" "$@"
