"""Writes docs/kinds/: one page per kind of virtual traffic, each a real run of the lab.

    .venv/bin/python scripts/kind_pages.py [KIND …]

Brings up the topology of each kind, starts traffic, diagnoses it healthy and with a fault, and writes down what was
typed and what came back, with a picture of each path. Needs root, as the lab does.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from html import escape
from itertools import zip_longest
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from vtrace.model.answer import Answer
from vtrace.present.cli.render import render

PROGRAM = [sys.executable, "-m", "vtrace.present.cli.main"]
PAGES = Path(__file__).resolve().parent.parent / "docs" / "kinds"
LAB = os.environ.get("VTRACE_LAB", "pages")
TIMEOUT_S = 90

ROW_PX, WIDTH_PX, INDENT_PX = 22, 760, 16
COLORS = {"vswitch": "#2563eb", "vrouter": "#7c3aed", "vbrouter": "#b45309", "slb": "#0f766e"}
WORDS = {"vswitch": "vSwitch", "vrouter": "vRouter", "vbrouter": "vBRouter", "slb": "SLB"}
POINTS = {
    "first_hop": "colored",
    "ingress": "came in",
    "logical_egress": "passed on",
    "remote_output": "sent by tunnel",
    "egress": "handed out",
}
STYLE = (
    "text{font:13px sans-serif;fill:#111827}.server{font-weight:bold}.small{font-size:12px;fill:#4b5563}"
    ".kind{font-weight:bold;fill:#fff;font-size:11px}"
    ".good{fill:#15803d;font-weight:bold}.bad{fill:#b91c1c;font-weight:bold}"
)
GOOD = ("delivered", "left_domain")


def run(*words: str, exits: tuple[int, ...] = (0,)) -> str:
    """What a `vtrace` command prints on stdout."""
    argv = [*PROGRAM, *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode not in exits:
        sys.exit(f"vtrace {shlex.join(words)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def shown(command: str, output: str = "") -> str:
    """A command and its output as a block of a page."""
    return f"```\n$ {command}\n{output.rstrip()}\n```\n" if output.strip() else f"```\n$ {command}\n```\n"


class Page:
    """One page while it is written; `pictures` are numbered."""

    def __init__(self, name: str, title: str, topology: str) -> None:
        self.name = name
        self.topology = topology
        self.parts = [f"# {title}\n"]
        self._pictures = 0

    def text(self, text: str) -> None:
        self.parts.append(" ".join(text.split()) + "\n")

    def heading(self, text: str) -> None:
        self.parts.append(f"## {text}\n")

    def command(self, line: str) -> None:
        """Runs `vtrace lab …` as an operator types it, and shows it."""
        words = shlex.split(line)
        lab = ["--lab", LAB] if words[:2] != ["lab", "exec"] else []
        output = run(*words[:2], *lab, *words[2:]) if lab else run("lab", "exec", "--lab", LAB, *words[2:])
        self.parts.append(shown(f"vtrace {line}", output))

    def diagnose(self, line: str, *, lost: bool) -> None:
        """Diagnoses, checks that the answer is what the page is about, and shows it with a picture of its paths."""
        words = shlex.split(line)
        document = run(*words, "--lab", LAB, "--json", exits=(1,) if lost else (0,))
        text = io.StringIO()
        console = Console(file=text, highlight=False, soft_wrap=True, no_color=True, width=200)
        render(msgspec.json.decode(document, type=Answer), console)
        self.parts.append(shown(f"vtrace {line}", text.getvalue()))
        for path in json.loads(document)["paths"]:
            self._pictures += 1
            file = PAGES / f"{self.name}-{self._pictures}.svg"
            file.write_text(picture(path))
            self.parts.append(
                f"![{path['from']} to {path['to']}, {path['direction']}: {path['disposition']}]({file.name})\n"
            )

    def write(self) -> None:
        (PAGES / f"{self.name}.md").write_text("\n".join(self.parts))


def picture(path: dict[str, Any]) -> str:
    """A path as SVG: a box for each server, a line for each hop, the end in green or red."""
    rows: list[str] = []
    y, server = 8, ""
    for hop, after in zip_longest(path["hops"], path["hops"][1:]):
        if hop["point"] == "remote_output" and after is not None and after["server"] == hop["server"]:
            hop["point"] = "handed on"  # by a patch between two bridges of the server
        if hop["server"] != server:
            server = hop["server"]
            y += 6
            rows.append(f'<text x="8" y="{y + 15}" class="server">server {escape(server)}</text>')
            y += ROW_PX
        y = _hop(rows, hop, y)
    good = path["disposition"] in GOOD
    ending = escape(f"{path['packets']} packets {path['disposition'].replace('_', ' ')}")
    style, mark = ("good", "✓") if good else ("bad", "✗")
    rows.append(f'<text x="{8 + INDENT_PX}" y="{y + 17}" class="{style}">{mark} {ending}</text>')
    height = y + ROW_PX + 10
    size = f'width="{WIDTH_PX}" height="{height}" viewBox="0 0 {WIDTH_PX} {height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
        f'<style>{STYLE}</style><rect width="100%" height="100%" fill="#f9fafb" stroke="#d1d5db"/>'
        f"{''.join(rows)}</svg>\n"
    )


def _hop(rows: list[str], hop: dict[str, Any], y: int) -> int:
    """Draws one hop; the y of the next."""
    left = 8 + INDENT_PX
    kind = hop["vfd_kind"]
    rows.append(f'<line x1="{left + 34}" y1="{y - 2}" x2="{left + 34}" y2="{y + 2}" stroke="#6b7280"/>')
    rows.append(f'<rect x="{left}" y="{y + 2}" width="68" height="17" rx="4" fill="{COLORS.get(kind, "#374151")}"/>')
    rows.append(f'<text x="{left + 34}" y="{y + 15}" text-anchor="middle" class="kind">{WORDS.get(kind, kind)}</text>')
    ports = " → ".join(filter(None, (hop["in_port"], hop["out_port"])))
    changes = "; ".join(f"{r['before']} → {r['after']}" for r in hop.get("rewritten", ()))
    what = "chose " + changes if kind == "slb" else f"{POINTS.get(hop['point'], hop['point'])} ({ports})"
    rows.append(f'<text x="{left + 76}" y="{y + 15}">{escape(hop["vfd"])}: {escape(what)}</text>')
    y += ROW_PX
    if changes and kind != "slb":
        rows.append(f'<text x="{left + 92}" y="{y + 13}" class="small">{escape(changes)}</text>')
        y += ROW_PX - 4
    return y


def begin(name: str, title: str, topology: str, intro: str) -> Page:
    """A page with its topology up."""
    page = Page(name, title, topology)
    page.text(intro)
    page.text(f"This page is a real run: `scripts/kind_pages.py {name}` makes it anew.")
    page.heading("Topology")
    run("lab", "up", topology, "--lab", LAB)
    status = json.loads(run("lab", "status", "--json", "--lab", LAB))
    rows = [
        f"| {v['name']} | {v['vpc']} | {v['switch']} | {v['server']} | {', '.join(v['addresses'])} |"
        for v in status["vms"]
    ]
    page.parts.append("\n".join(["| VM | VPC | switch | server | addresses |", "|---|---|---|---|---|", *rows, ""]))
    outside = [n for n in status["nodes"] if n["role"] == "outside"]
    if outside:
        page.text("Outside: " + "; ".join(f"`{n['name']}` at {', '.join(n['addresses'])}" for n in outside) + ".")
    page.parts.append(shown(f"vtrace lab up {topology}"))
    return page


def inside_vpc() -> Page:
    page = begin(
        "inside-vpc",
        "Inside a VPC, directly and through an SLB",
        "slb",
        """Both ends are VMs of one VPC. The vSwitch next to the sender colors, the one next to the receiver takes
        the color off. Through an SLB the packets carry a VIP until the load balancer has chosen a backend: a
        task names the backend, or the VIP.""",
    )
    page.heading("Healthy, through the VIP")
    page.command("lab traffic start --from red-client1 --to 10.1.9.1 --proto udp --dport 5353 --flows 8")
    page.diagnose("diagnose --from red-client1 --to red-web2 --proto udp", lost=False)
    page.text(
        """The task names a backend. What went to the VIP and on to other backends is counted apart, neither lost
        nor part of N. Naming the VIP itself shows them all:"""
    )
    page.diagnose("diagnose --from red-client1 --to 10.1.9.1 --proto udp --direction both --packets 30", lost=False)
    page.heading("A fault: an ACL in front of one backend")
    page.command(
        "lab exec central -- ovn-nbctl --wait=hv acl-add red-web to-lport 1500 'outport == \"red-web2\" && udp' drop"
    )
    page.diagnose("diagnose --from red-client1 --to 10.1.9.1 --proto udp --packets 30", lost=True)
    page.command("lab exec central -- ovn-nbctl --wait=hv acl-del red-web")
    page.heading("A fault of the SLB: no backend")
    page.command("lab traffic stop")
    page.command(
        "lab exec central -- ovn-nbctl --wait=hv lb-add empty 10.1.9.9:53 '' udp -- ls-lb-add red-client empty"
    )
    page.command("lab traffic start --from red-client1 --to 10.1.9.9 --proto udp --dport 53 --no-server")
    page.diagnose("diagnose --from red-client1 --to 10.1.9.9 --proto udp", lost=True)
    return page


def internet() -> Page:
    page = begin(
        "internet",
        "VPC and Internet",
        "internet",
        """Outward the VM's vSwitch colors, and the gateway takes the color off where the packet leaves for the
        provider network. Inward the gateway's port to the provider network colors. A task names the VM; the
        packets carry its floating IP, or the address that the VPC shares.""",
    )
    page.heading("Outward: a floating IP on the gateway")
    page.command("lab traffic start --from red-web1 --to 198.51.100.10 --proto udp --dport 7000")
    page.diagnose("diagnose --from red-web1 --to 198.51.100.10 --direction both --packets 50", lost=False)
    page.heading("Inward: a distributed floating IP, by IPv6")
    page.command("lab traffic start --from internet1:2001:db8:100::20 --to red-web2 --proto tcp --ip 6")
    page.diagnose("diagnose --from 2001:db8:100::20 --to red-web2 --packets 50", lost=False)
    page.heading("A fault: a router policy on the way out")
    page.command(
        "lab exec central -- ovn-nbctl --wait=hv lr-policy-add red-router 900 'ip4.dst == 198.51.100.0/24' drop"
    )
    page.diagnose("diagnose --from red-web1 --to 198.51.100.10 --packets 50", lost=True)
    page.command("lab exec central -- ovn-nbctl --wait=hv lr-policy-del red-router")
    page.heading("A fault: the wire to the gateway")
    page.command(
        "lab exec wire-hv1-gw1 -- sh -c 'nft add table inet cut; "
        'nft add chain inet cut f "{ type filter hook forward priority 0; }"; '
        "nft add rule inet cut f udp dport 6081 drop'"
    )
    page.diagnose("diagnose --from red-web1 --to 198.51.100.10 --packets 50", lost=True)
    return page


def data_center() -> Page:
    page = begin(
        "data-center",
        "VPC and customer data center",
        "datacenter",
        """A gateway router plays the vBRouter; it learns the customer's prefixes by BGP. The vBRouter is the last
        device in our hands: what lies behind it is invisible.""",
    )
    page.heading("Healthy, both ways")
    page.command("lab traffic start --from red-web1 --to 10.50.1.10 --proto udp --dport 5353")
    page.diagnose("diagnose --from red-web1 --to 10.50.1.10 --direction both --packets 50", lost=False)
    page.heading("A fault: the customer withdraws a prefix")
    page.command("lab exec customer1 -- sh -c 'birdc -s $BIRD_SOCKET disable announce1'")
    wait_for_route(gone=True)
    page.diagnose("diagnose --from red-web1 --to 10.50.1.10 --packets 50", lost=True)
    page.command("lab exec customer1 -- sh -c 'birdc -s $BIRD_SOCKET enable announce1'")
    wait_for_route(gone=False)
    page.heading("A fault at the vRouter before it")
    page.command("lab exec central -- ovn-nbctl --wait=hv lr-policy-add red-router 900 'ip4.dst == 10.50.1.10' drop")
    page.diagnose("diagnose --from red-web1 --to 10.50.1.10 --packets 50", lost=True)
    return page


def wait_for_route(*, gone: bool) -> None:
    """Until the vBRouter has lost, or has again, the customer's first prefix."""
    listing = ("lab", "exec", "--lab", LAB, "central", "--", "ovn-nbctl", "lr-route-list", "red-vbr")
    for _ in range(200):
        if ("10.50.1.0/24" not in run(*listing)) == gone:
            return
    sys.exit("the route of red-vbr did not change")


def vpc_vpc() -> Page:
    page = begin(
        "vpc-vpc",
        "VPC and VPC",
        "vpc-vpc",
        """The routers of two VPCs are joined by a transit switch. First and last device are the vSwitches next to
        the two VMs, as inside one VPC.""",
    )
    page.heading("Healthy, both ways")
    page.command("lab traffic start --from red-web1 --to blue-web2 --proto udp --dport 7000")
    page.diagnose("diagnose --from red-web1 --to blue-web2 --direction both --packets 50", lost=False)
    page.heading("A fault in the other VPC: a route that discards")
    page.command("lab exec central -- ovn-nbctl --wait=hv lr-route-add blue-router 10.2.1.12/32 discard")
    page.diagnose("diagnose --from red-web1 --to blue-web2 --packets 50", lost=True)
    return page


def plain() -> Page:
    page = begin(
        "plain",
        "Bridges without OVN",
        "plain",
        """Open vSwitch bridges with entries that somebody wrote, VXLAN tunnels between three servers, and a patch
        between two bridges of one. Each bridge is a virtual device. The inventory file says where the VMs are and what
        joins the bridges ([plain-ovs.md](../plain-ovs.md)); of a lab VTrace knows it, elsewhere it is
        `--inventory FILE`.""",
    )
    page.command("lab exec hv1 -- ovs-ofctl --no-stats --names dump-flows br0")
    page.heading("Healthy, both ways: by a tunnel, then by a patch to a second bridge")
    page.command("lab traffic start --from plain-a1 --to plain-b1 --proto udp --dport 7000")
    page.diagnose("diagnose --from plain-a1 --to plain-b1 --direction both --packets 50", lost=False)
    page.heading("A fault: an entry that drops, on the second bridge")
    page.command(
        "lab exec hv3 -- ovs-ofctl add-flow br1 table=10,priority=300,udp,nw_src=10.1.1.11,tp_dst=7000,actions=drop"
    )
    page.diagnose("diagnose --from plain-a1 --to plain-b1 --packets 50", lost=True)
    page.command(
        "lab exec hv3 -- ovs-ofctl --strict del-flows br1 table=10,priority=300,udp,nw_src=10.1.1.11,tp_dst=7000"
    )
    page.heading("A fault: nothing outputs to the VM")
    page.command("lab exec hv1 -- ovs-ofctl --strict del-flows br0 table=20,priority=100,dl_dst=0a:00:00:00:00:04")
    page.diagnose("diagnose --from plain-a1 --to plain-b1 --packets 50", lost=True)
    page.command(
        "lab exec hv1 -- ovs-ofctl add-flow br0 table=20,priority=100,dl_dst=0a:00:00:00:00:04,actions=output:vx-hv3"
    )
    page.heading("A fault: a wire between two servers")
    page.command("lab break physical_loss a=hv1 b=hv3 direction=a-b")
    page.diagnose("diagnose --from plain-a1 --to plain-b1 --packets 50", lost=True)
    return page


KINDS = {
    "inside-vpc": inside_vpc,
    "internet": internet,
    "data-center": data_center,
    "vpc-vpc": vpc_vpc,
    "plain": plain,
}


def main() -> None:
    PAGES.mkdir(exist_ok=True)
    for name in sys.argv[1:] or KINDS:
        if name not in KINDS:
            sys.exit(f"there is no kind {name!r}; there are {', '.join(KINDS)}")
        try:
            KINDS[name]().write()
        finally:
            run("lab", "down", "--lab", LAB)
        print(f"wrote {PAGES / name}.md")


if __name__ == "__main__":
    main()
