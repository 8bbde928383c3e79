"""The real docker command against the API, over doubles of the rooms: what it prints is what its users see."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from api_fake_containers import FakeSession
from api_fakes import Api, eventually, serving

COMMANDS = [path for path in ("/usr/local/bin/docker", "/usr/bin/docker") if os.access(path, os.X_OK)] or [shutil.which("docker") or ""]

Docker = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with serving() as running:
        yield running


@pytest.fixture(params=COMMANDS)
async def docker(api: Api, request: pytest.FixtureRequest) -> Docker:
    """Runs `docker ARGUMENTS`: exit code, output, errors."""
    command: str = request.param
    if not command:
        pytest.skip("there is no docker command here")
    environment = {"DOCKER_HOST": f"unix://{api.path}", "HOME": str(api.path.parent), "PATH": os.defpath}

    async def run(*arguments: str) -> tuple[int, str, str]:
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(
            command, *arguments, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )
        try:
            output, errors = await asyncio.wait_for(child.communicate(), 20)
        except TimeoutError:
            child.kill()
            await child.wait()
            raise
        return child.returncode or 0, output.decode(), errors.decode()

    return run


async def test_version(docker: Docker) -> None:
    code, output, errors = await docker("version")
    assert (code, errors) == (0, "")
    assert "Server: netplug" in output
    assert "1.47 (minimum version 1.24)" in output


async def test_info(docker: Docker) -> None:
    code, output, _ = await docker("info", "--format", "{{.ServerVersion}} {{.Driver}} {{.OSType}}")
    assert (code, output) == (0, "0.1.0 overlay linux\n")


async def test_info_of_a_cluster(docker: Docker, api: Api) -> None:
    """Shown by the commands that knew of clusters before swarms; the others do not mind."""
    api.settings.store, api.settings.advertise = "etcd://192.0.2.9:2379", "192.0.2.1"
    code, output, _ = await docker("info")
    assert code == 0
    _, number, _ = await docker("version", "--format", "{{.Client.Version}}")
    shown = "Cluster Store: etcd://192.0.2.9:2379" in output and "Cluster Advertise: 192.0.2.1" in output
    assert shown == number.startswith("20.")


async def test_a_networks_life(docker: Docker, api: Api) -> None:
    code, output, _ = await docker(
        "network", "create", "--subnet", "10.9.0.0/16", "--gateway", "10.9.0.1", "--label", "a=b", "--opt", "o=p", "--internal", "demo"
    )
    network = api.controller.network("demo")
    assert (code, output) == (0, network.id + "\n")
    assert (network.internal, network.labels, network.options, network.pools[0].subnet) == (True, {"a": "b"}, {"o": "p"}, "10.9.0.0/16")

    assert await docker("network", "ls", "--filter", "label=a", "--format", "{{.Name}} {{.Driver}} {{.Scope}}") == (
        0,
        "demo bridge local\n",
        "",
    )
    assert await docker("network", "ls", "-q", "--filter", "name=nothing") == (0, "", "")

    identity = await api.run("web")
    assert await docker("network", "connect", "--ip", "10.9.0.7", "--alias", "www", "demo", "web") == (0, "", "")
    code, output, _ = await docker("network", "inspect", "demo")
    member = json.loads(output)[0]["Containers"][identity]
    assert (code, member["Name"], member["IPv4Address"]) == (0, "web", "10.9.0.7/16")
    assert api.controller.endpoints(network=network.id)[0].aliases == ("www",)

    code, _, errors = await docker("network", "rm", "demo")
    assert code == 1
    assert errors.startswith("Error response from daemon: error while removing network: network demo id ")
    assert await docker("network", "disconnect", "demo", "web") == (0, "", "")
    assert await docker("network", "rm", "demo") == (0, "demo\n", "")
    assert (await docker("network", "inspect", "demo"))[0] == 1


async def test_a_network_of_both_ip_versions(docker: Docker, api: Api) -> None:
    pools = ("--subnet", "10.9.0.0/16", "--subnet", "fd00:9::/64", "--gateway", "fd00:9::1", "--ip-range", "fd00:9::100/120")
    code, output, _ = await docker("network", "create", "--ipv6", *pools, "demo")
    network = api.controller.network("demo")
    assert (code, output, network.ipv6) == (0, network.id + "\n", True)
    assert {pool.subnet: (pool.gateway, pool.ip_range) for pool in network.pools} == {
        "10.9.0.0/16": ("", ""),
        "fd00:9::/64": ("fd00:9::1", "fd00:9::100/120"),
    }
    assert await docker("network", "ls", "--filter", "name=demo", "--format", "{{.Name}} {{.IPv6}}") == (0, "demo true\n", "")

    assert (await docker("run", "-d", "--name", "web", "--network", "demo", "--ip6", "fd00:9::7", "busybox", "sleep", "9"))[0] == 0
    shown = "{{.NetworkSettings.Networks.demo.GlobalIPv6Address}}/{{.NetworkSettings.Networks.demo.GlobalIPv6PrefixLen}}"
    assert await docker("inspect", "-f", shown, "web") == (0, "fd00:9::7/64\n", "")
    code, output, _ = await docker("network", "inspect", "-f", "{{.EnableIPv6}} {{range .Containers}}{{.IPv6Address}}{{end}}", "demo")
    assert (code, output) == (0, "true fd00:9::7/64\n")

    await api.run("other")
    assert await docker("network", "connect", "--ip6", "fd00:9::8", "demo", "other") == (0, "", "")
    assert await docker("inspect", "-f", shown, "other") == (0, "fd00:9::8/64\n", "")


async def test_prune(docker: Docker, api: Api) -> None:
    await api.ask("POST", "/networks/create", {"Name": "demo"})
    code, output, _ = await docker("network", "prune", "-f", "--filter", "label!=keep")
    assert (code, output) == (0, "Deleted Networks:\ndemo\n\n")


async def test_errors_are_sentences(docker: Docker) -> None:
    """Raw JSON would be printed if the content type were anything but application/json."""
    await docker("network", "create", "six")
    code, _, errors = await docker("network", "create", "six")
    assert (code, errors) == (1, "Error response from daemon: network with name six already exists\n")
    code, _, errors = await docker("network", "rm", "bridge")
    assert (code, errors.splitlines()[0]) == (1, "Error response from daemon: bridge is a pre-defined network and cannot be removed")


async def test_ps_inspect_and_port(docker: Docker, api: Api) -> None:
    identity = await api.run("web", HostConfig={"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}})
    code, output, _ = await docker("ps", "--format", "{{.ID}} {{.Names}} {{.Image}} {{.Command}} {{.Status}} {{.Ports}} {{.Networks}}")
    assert (code, output) == (0, f'{identity[:12]} web busybox "sleep 9" Up Less than a second 0.0.0.0:8080->80/tcp bridge\n')
    assert await docker("inspect", "-f", "{{.State.Status}} {{.NetworkSettings.IPAddress}}", "web") == (0, "running 172.17.0.2\n", "")
    assert await docker("port", "web", "80") == (0, "0.0.0.0:8080\n", "")
    assert await docker("stop", "web") == (0, "web\n", "")
    assert (await docker("ps", "-aq"))[1] == identity[:12] + "\n"
    assert await docker("rm", "web") == (0, "web\n", "")
    assert (await docker("rm", "web"))[2].splitlines()[0].endswith("No such container: web")


async def test_run(docker: Docker, api: Api) -> None:
    """Output, exit code, and the container's removal all come through attach and wait."""
    session = api.containers.session = FakeSession(ends=False)

    async def container() -> None:
        await eventually(lambda: any(container.status == "running" for container in api.containers.all()))
        session.say((1, b"hello\n"))
        session.say((2, b"oops\n"))
        session.say(None)
        await api.containers.kill("once")

    ending = asyncio.ensure_future(container())
    code, output, errors = await docker("run", "--name", "once", "--memory", "100m", "-p", "8080:80", "busybox", "echo", "hello")
    await ending
    assert (code, output) == (137, "hello\n")
    assert errors.splitlines() == ["WARNING: netplug does not support --memory: it has no effect", "oops"]
    config = api.containers.get("once").config
    assert (config.command, config.ports[0].host_port, config.network_mode) == (("echo", "hello"), 8080, "default")


async def test_run_detached_and_logs(docker: Docker, api: Api) -> None:
    await api.ask("POST", "/networks/create", {"Name": "demo"})
    code, output, _ = await docker("run", "-d", "--name", "web", "--network-alias", "x", "--network", "demo", "busybox", "sleep", "9")
    assert (code, output) == (0, api.containers.get("web").id + "\n")
    assert api.containers.get("web").config.attachments[0].aliases == ("x",)
    assert await docker("logs", "--tail", "2", "web") == (0, "one\n", "two\n")


async def test_exec(docker: Docker, api: Api) -> None:
    await api.run("web")
    api.containers.session = FakeSession((1, b"in there\n"))
    code, output, _ = await docker("exec", "-e", "A=b", "web", "ls", "/")
    assert (code, output) == (0, "in there\n")
    assert [state.config.command for state in api.containers.execs.values()] == [("ls", "/")]


async def test_run_of_an_image_that_is_not_there(docker: Docker) -> None:
    code, _, errors = await docker("run", "nginx")
    assert code == 125
    assert "netplug pulls nothing" in errors


async def test_images(docker: Docker, api: Api, tmp_path: Path) -> None:
    tarball = tmp_path / "root.tar"
    tarball.write_bytes(b"x" * 100_000)
    assert await docker("import", str(tarball), "bb:1") == (0, "sha256:" + "cd" * 32 + "\n", "")
    assert (await docker("images", "--format", "{{.Repository}}:{{.Tag}}"))[1].splitlines()[0] == "bb:1"
    assert (await docker("rmi", "bb:1"))[1] == "Untagged: bb:1\nDeleted: sha256:" + "cd" * 32 + "\n"


async def test_events(docker: Docker, api: Api) -> None:
    await api.ask("POST", "/networks/create", {"Name": "demo"})
    code, output, _ = await docker("events", "--since", "1h", "--until", f"{time.time():.6f}", "--filter", "type=network")
    assert code == 0
    assert f"network create {api.controller.network('demo').id} (name=demo, type=bridge)" in output
