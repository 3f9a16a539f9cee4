"""All of an examination: the hosts, one after the other, then the cloud."""

from __future__ import annotations

from vtrace.doctor.cloud import judge_cloud, read_cloud
from vtrace.doctor.finding import Examination, Finding, examination
from vtrace.doctor.host import Host, examine
from vtrace.doctor.judging import judge
from vtrace.embedded import Cloud, Server


async def examine_cloud(cloud: Cloud) -> Examination:
    """Looks at every server of a cloud, and at its databases; changes nothing."""
    findings: list[Finding] = []
    hosts: dict[str, Host] = {}
    for server in cloud.servers:
        name = server.chassis or "this server"
        host = hosts[name] = await examine(name, server.rundir, server.bridge)
        findings += judge(host)
    if cloud.sb:
        rows = await read_cloud(cloud.nb, cloud.sb)
        controllers = {name: host.controller_version for name, host in hosts.items()}
        findings += judge_cloud(rows, [_chassis(s, hosts) for s in cloud.servers], controllers)
    return examination(tuple(hosts), findings)


def _chassis(server: Server, hosts: dict[str, Host]) -> str:
    database = hosts[server.chassis or "this server"].database
    return server.chassis or (database.system_id if database else "")
