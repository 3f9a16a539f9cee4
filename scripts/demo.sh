#!/usr/bin/env bash
# A real overlay network on this machine, a fault in it, and VTrace's answer. As root or with sudo.
#
# Succeeds only if the answers were right: a loss, at the right server and switch, because of the very ACL that was
# put in; and no loss once it is gone. The lab is a lab of its own (named demo) and is taken down in every case.
set -euo pipefail
. "$(dirname "$0")/common.sh"
cd "$root_dir"

lab=${VTRACE_DEMO_LAB:-demo}
answer=$(mktemp)
can_be_root || die "the demo needs root (it makes network namespaces), and there is no sudo"

vtrace() { as_root "VTRACE_LAB=$lab" "$root_dir/.venv/bin/vtrace" "$@"; }

show() {
    printf '\n$ vtrace %s\n' "$*"
    vtrace "$@"
}

lab_is_ours=no
finish() {
    local status=$?
    trap - EXIT INT TERM HUP
    if [ "$lab_is_ours" = yes ]; then vtrace lab down >&2 || status=1; fi
    rm -f "$answer"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# expect EXIT-CODE WHAT COMMAND…: runs it in view, and stops the demo if it ends otherwise.
expect() {
    local wanted=$1 what=$2 status=0
    shift 2
    show "$@" || status=$?
    [ "$status" -eq "$wanted" ] || die "the answer is wrong" "$what: exit code $wanted was expected, and it was $status"
}

# The answer as a document, held against what was broken.
check_document() {
    local acl
    acl=$(vtrace lab exec central -- ovn-nbctl --timeout=10 --bare --columns=_uuid find ACL action=drop)
    vtrace diagnose --from red-web1 --to red-db1 --json >"$answer" 2>/dev/null || true
    .venv/bin/python - "$answer" "$acl" <<'PYTHON'
import json
import sys

document = json.load(open(sys.argv[1]))
if "error" in document:
    sys.exit(f"error: {document['error']}")
first = (document["verdicts"] or [{}])[0]
where, why = first.get("where") or {}, first.get("why") or {}
seen = {
    "loss": document["loss"],
    "kind": first.get("kind"),
    "server": where.get("server"),
    "vfd": where.get("vfd"),
    "code": why.get("code"),
    "object": (why.get("object") or {}).get("type"),
    "uuid": (why.get("object") or {}).get("uuid"),
}
wanted = {"loss": "yes", "kind": "dropped", "server": "hv3", "vfd": "red-db", "code": "acl_drop", "object": "ACL"}
wanted["uuid"] = sys.argv[2].strip()
if seen != wanted:
    sys.exit(f"error: the answer is wrong\n       expected {wanted}\n       got      {seen}")
PYTHON
}

if vtrace lab status >/dev/null 2>&1; then
    die "a lab named $lab is already up" "Take it down (vtrace lab down --lab $lab), or set VTRACE_DEMO_LAB."
fi
lab_is_ours=yes

say "1. An overlay network: three hypervisors, a gateway, two VPCs; Open vSwitch and OVN, real packets"
printf '\n$ export VTRACE_LAB=%s\n' "$lab"
show lab up
say "2. Traffic from a web server to its database, 100 packets/s, and no loss"
show lab traffic start --from red-web1 --to red-db1 --proto udp --dport 5432 --rate 100
expect 0 "a healthy network" diagnose --from red-web1 --to red-db1
say "3. Somebody adds an ACL that drops this traffic at the database's switch"
show lab break acl_drop from=red-web1 to=red-db1
say "4. Is there a loss, where, and why?"
expect 1 "an ACL drops the traffic" diagnose --from red-web1 --to red-db1
check_document
say "5. The ACL is taken away again"
show lab heal
expect 0 "the healed network" diagnose --from red-web1 --to red-db1
say "Right each time: no loss, then the ACL on switch red-db at server hv3, then no loss"
