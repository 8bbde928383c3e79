"""Network modes, and the files that tell a container about its network."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from netplug.errors import Conflict, Forbidden, InvalidArgument, NotFound
from netplug.model import DnsConfig, PortBinding
from netplug.runtime import watcher
from netplug.runtime.execs import ExecSession
from netplug.runtime.model import Attachment, Container, ExecConfig
from tests.kernel.runtime_lab import BUSYBOX, Lab, laboratory, shell

LOCAL = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with laboratory() as made, asyncio.timeout(60):
        yield made


async def sleeper(lab: Lab, name: str, mode: str, *networks: str, **options: object) -> Container:
    wanted = tuple(Attachment(network=network) for network in networks)
    return await lab.running("sleep", "1000", name=name, mode=mode, attachments=wanted, **options)


async def inside(lab: Lab, name: str, *command: str) -> str:
    """What a command in the container says."""
    identity = await lab.containers.exec_create(name, ExecConfig(command=(BUSYBOX, *command)))
    session = await lab.containers.exec_start(identity)
    assert isinstance(session, ExecSession)
    said = b""
    while (piece := await session.read()) is not None:
        said += piece[1]
    session.close()
    return said.decode()


def netns(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


async def test_everything_is_connected_before_the_process_starts(lab: Lab):
    container = await sleeper(lab, "web", "demo", "demo", "other")
    assert lab.controller.calls == ["create_sandbox web", "connect demo web", "connect other web"]
    sandbox = lab.controller.sandbox(container.id)
    assert sandbox is not None
    assert os.stat(sandbox.namespace).st_ino == os.stat(f"/proc/{container.pid}/ns/net").st_ino
    await lab.containers.stop("web", 0)
    assert lab.controller.calls[3:] == ["remove_sandbox web"]


async def test_user_defined_networks_use_the_resolver(lab: Lab):
    container = await sleeper(lab, "web", "demo", "demo")
    assert await inside(lab, "web", "cat", "/etc/resolv.conf") == "search example.net\nnameserver 127.0.0.11\noptions edns0 ndots:0\n"
    assert await inside(lab, "web", "cat", "/etc/hosts") == f"{LOCAL}10.77.4.2\t{container.id[:12]}\n"
    assert await inside(lab, "web", "cat", "/etc/hostname") == f"{container.id[:12]}\n"


async def test_the_default_bridge_uses_the_host_s_servers(lab: Lab):
    await sleeper(lab, "web", "default", hostname="webhost", domainname="example.org")
    assert await inside(lab, "web", "cat", "/etc/resolv.conf") == "search example.net\nnameserver 192.0.2.53\noptions edns0\n"
    assert (await inside(lab, "web", "cat", "/etc/hosts")).endswith("10.77.1.2\twebhost.example.org webhost\n")


async def test_what_the_user_says_goes_first(lab: Lab):
    dns = DnsConfig(
        servers=("192.0.2.1",), search=(".",), options=("ndots:2",), extra_hosts=("db:192.0.2.7", "up:host-gateway", "six:2001:db8::1")
    )
    await sleeper(lab, "web", "demo", "demo", dns=dns)
    assert await inside(lab, "web", "cat", "/etc/resolv.conf") == "nameserver 127.0.0.11\noptions ndots:2\n"
    hosts = await inside(lab, "web", "cat", "/etc/hosts")
    assert "192.0.2.7\tdb\n10.77.1.1\tup\n2001:db8::1\tsix\n" in hosts
    sandbox = lab.controller.sandbox(lab.containers.get("web").id)
    assert sandbox is not None
    assert sandbox.dns.servers == ("192.0.2.1",)
    await sleeper(lab, "old", "default", dns=DnsConfig(servers=("192.0.2.1", "192.0.2.2")))
    expected = "search example.net\nnameserver 192.0.2.1\nnameserver 192.0.2.2\noptions edns0\n"
    assert await inside(lab, "old", "cat", "/etc/resolv.conf") == expected


async def test_none_has_only_loopback(lab: Lab):
    await sleeper(lab, "alone", "none", ports=(PortBinding(protocol="tcp", port=80),))
    assert (await inside(lab, "alone", "ls", "/sys/class/net")).split() == ["lo"]
    sandbox = lab.controller.sandbox(lab.containers.get("alone").id)
    assert sandbox is not None
    assert sandbox.ports == ()
    assert await inside(lab, "alone", "cat", "/etc/hosts") == LOCAL


async def test_host_is_the_daemon_s_namespace(lab: Lab):
    container = await sleeper(lab, "here", "host")
    assert netns(container.pid) == netns(os.getpid())
    assert await inside(lab, "here", "cat", "/etc/hosts") == Path("/etc/hosts").read_text()
    assert await inside(lab, "here", "hostname") == f"{os.uname().nodename}\n"
    assert await inside(lab, "here", "cat", "/etc/resolv.conf") == lab.resolv_conf.read_text()


async def test_another_container_s_network_is_shared_with_its_files(lab: Lab):
    first = await sleeper(lab, "first", "demo", "demo")
    second = await sleeper(lab, "second", "container:first")
    assert second.config.network_mode == f"container:{first.id}"
    assert netns(second.pid) == netns(first.pid)
    for file in ("hosts", "hostname", "resolv.conf"):
        assert await inside(lab, "second", "cat", f"/etc/{file}") == await inside(lab, "first", "cat", f"/etc/{file}")
    assert await inside(lab, "second", "hostname") == f"{first.id[:12]}\n"
    assert "create_sandbox second" not in lab.controller.calls
    await lab.containers.remove("second", force=True)
    await lab.containers.stop("first", 0)
    await lab.containers.create("late", shell("true", network_mode="container:first"))
    with pytest.raises(Conflict, match=f"^cannot join network of a non running container: {first.id}$"):
        await lab.containers.start("late")
    with pytest.raises(NotFound, match=r"^No such container: nobody$"):
        await lab.containers.create("", shell("true", network_mode="container:nobody"))


async def test_hosts_follow_connects_in_place(lab: Lab):
    container = await sleeper(lab, "web", "demo", "demo")
    inode = (lab.paths.record(container.id) / "hosts").stat().st_ino
    await lab.containers.connect("other", "web", Attachment(network="other"))
    short = container.id[:12]
    assert await inside(lab, "web", "cat", "/etc/hosts") == f"{LOCAL}10.77.4.2\t{short}\n10.77.5.3\t{short}\n"
    await lab.containers.disconnect("demo", "web")
    assert await inside(lab, "web", "cat", "/etc/hosts") == f"{LOCAL}10.77.5.3\t{short}\n"
    assert (lab.paths.record(container.id) / "hosts").stat().st_ino == inode
    assert [one.network for one in lab.containers.get("web").config.attachments] == ["other"]
    await lab.containers.stop("web", 0)
    await lab.containers.start("web")
    assert lab.controller.calls[-2:] == ["create_sandbox web", "connect other web"]


async def test_connect_while_it_does_not_run_counts_at_its_start(lab: Lab):
    await lab.containers.create("web", shell("sleep", "9", network_mode="demo", attachments=(Attachment(network="demo"),)))
    await lab.containers.connect(lab.controller.network("other").id[:12], "web", Attachment(network="other", aliases=("www",)))
    assert lab.controller.calls == []
    with pytest.raises(Forbidden, match=r"^endpoint with name web already exists in network other$"):
        await lab.containers.connect("other", "web", Attachment(network="other"))
    await lab.containers.disconnect("demo", "web")
    with pytest.raises(Forbidden, match=r"^container \w+ is not connected to network demo$"):
        await lab.containers.disconnect("demo", "web")
    await lab.containers.start("web")
    assert lab.controller.calls == ["create_sandbox web", "connect other web"]
    assert lab.controller.endpoints(sandbox=lab.containers.get("web").id)[0].aliases == ("www",)


async def test_what_networks_refuse(lab: Lab):
    await lab.containers.create("alone", shell("true"))
    with pytest.raises(Forbidden, match="private \\(none\\) mode"):
        await lab.containers.connect("demo", "alone", Attachment(network="demo"))
    await lab.containers.create("here", shell("true", network_mode="host"))
    with pytest.raises(Forbidden, match="network namespace with another container or host"):
        await lab.containers.connect("demo", "here", Attachment(network="demo"))
    bad = (Attachment(network="bridge", address="10.77.1.9"),)
    with pytest.raises(InvalidArgument, match=r"^user specified IP address is supported on user defined networks only$"):
        await lab.containers.create("", shell("true", network_mode="bridge", attachments=bad))
    with pytest.raises(InvalidArgument, match=r"^conflicting options: port publishing and the container type network mode$"):
        await lab.containers.create("", shell("true", network_mode="container:alone", ports=(PortBinding(protocol="tcp", port=80),)))


async def test_links_on_the_default_bridge(lab: Lab):
    db = await sleeper(
        lab, "db", "default", exposed=("5432/tcp",), environment=("MODE=fast",), ports=(PortBinding(protocol="udp", port=53),)
    )
    await lab.running("env; sleep 1000", name="web", mode="default", links=("db:the-db",))
    environment = await lab.said("web", "THE_DB_ENV_MODE=fast")
    expected = """THE_DB_NAME=/web/the-db
THE_DB_PORT=udp://10.77.1.2:53
THE_DB_PORT_53_UDP_ADDR=10.77.1.2
THE_DB_PORT_5432_TCP=tcp://10.77.1.2:5432
THE_DB_PORT_5432_TCP_PORT=5432
THE_DB_PORT_5432_TCP_PROTO=tcp"""
    assert set(expected.splitlines()) <= set(environment.splitlines())
    line = f"10.77.1.2\tthe-db {db.id[:12]} db\n"
    assert line in await inside(lab, "web", "cat", "/etc/hosts")
    await lab.containers.stop("db", 0)
    assert "the-db" not in await inside(lab, "web", "cat", "/etc/hosts")
    await lab.containers.start("db")
    assert line.replace("1.2", "1.4", 1) in await inside(lab, "web", "cat", "/etc/hosts")
    await lab.containers.stop("db", 0)
    await lab.containers.create("late", shell("true", network_mode="default", links=("db",)))
    with pytest.raises(Conflict, match=r"^Cannot link to a non running container: /db AS /late/db$"):
        await lab.containers.start("late")
    await lab.containers.remove("db")
    with pytest.raises(Conflict, match=r"^Cannot link to a non running container: /db AS /late/db$"):
        await lab.containers.start("late")


async def test_changes_of_the_host_s_resolv_conf_reach_containers(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    """Unless the file was changed in the container: then it is the user's."""
    monkeypatch.setattr(watcher, "INTERVAL", 0.02)
    await lab.restart()
    await sleeper(lab, "plain", "default")
    mine = await sleeper(lab, "mine", "default")
    await sleeper(lab, "named", "demo", "demo")
    (lab.paths.record(mine.id) / "resolv.conf").write_text("nameserver 192.0.2.99\n")
    lab.resolv_conf.with_suffix(".new").write_text("nameserver 192.0.2.54\n")
    lab.resolv_conf.with_suffix(".new").rename(lab.resolv_conf)
    async with asyncio.timeout(10):
        while await inside(lab, "plain", "cat", "/etc/resolv.conf") != "nameserver 192.0.2.54\n":
            pass
    assert await inside(lab, "mine", "cat", "/etc/resolv.conf") == "nameserver 192.0.2.99\n"
    assert await inside(lab, "named", "cat", "/etc/resolv.conf") == "nameserver 127.0.0.11\noptions ndots:0\n"


async def test_a_plan_names_the_networks(lab: Lab):
    config = shell("true", network_mode="demo", attachments=(Attachment(network="demo"), Attachment(network="other")))
    lines = await lab.containers.plan_start(config, "web")
    assert lines[-2:] == ["ip link set demo up", "ip link set other up"]
    assert lab.containers.all() == []
    container = await lab.containers.create("web", config)
    assert (await lab.containers.plan_start(container.config, "web"))[-2:] == lines[-2:]
    with pytest.raises(Conflict):
        await lab.containers.plan_start(shell("false"), "web")
    assert lab.controller.calls == []
