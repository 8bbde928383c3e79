"""POST /containers/create: what clients send, what becomes of it, what is refused and what is warned of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from api_fakes import Api, serving

from netplug.model import DnsConfig, PortBinding
from netplug.runtime.model import Attachment, Mount


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with serving() as running:
        yield running


async def create(api: Api, body: dict[str, Any], **query: str) -> Any:
    return await api.ask("POST", "/v1.47/containers/create", {"Image": "busybox", **body}, **query)


async def refusal(api: Api, body: dict[str, Any]) -> str:
    answer = await create(api, body)
    assert (api.status, api.containers.all()) == (400, [])
    return str(answer["message"])


async def test_the_body_that_docker_run_sends(api: Api) -> None:
    """As recorded from docker 28: what was not asked for is there too, as nulls, zeros and empty lists."""
    await api.ask("POST", "/networks/create", {"Name": "demo"})
    answer = await create(
        api,
        {
            "Hostname": "h",
            "Domainname": "",
            "User": "1000",
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": True,
            "OpenStdin": True,
            "StdinOnce": True,
            "Env": ["A=b"],
            "Cmd": ["top", "-b"],
            "Entrypoint": None,
            "Volumes": {},
            "WorkingDir": "/tmp",
            "OnBuild": None,
            "Labels": {"l": "1"},
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            "StopSignal": "SIGINT",
            "StopTimeout": 3,
            "HostConfig": {
                "Binds": ["/srv:/data:ro"],
                "ContainerIDFile": "",
                "LogConfig": {"Type": "", "Config": {}},
                "NetworkMode": "demo",
                "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}, {"HostIp": "", "HostPort": "9000-9010"}]},
                "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
                "AutoRemove": True,
                "ConsoleSize": [24, 80],
                "CapAdd": ["NET_ADMIN"],
                "CapDrop": None,
                "CgroupnsMode": "",
                "Dns": ["9.9.9.9"],
                "DnsOptions": ["ndots:2"],
                "DnsSearch": ["example.org"],
                "ExtraHosts": ["db:10.0.0.7"],
                "IpcMode": "",
                "OomScoreAdj": 0,
                "MemorySwappiness": -1,
                "OomKillDisable": False,
                "PidsLimit": 0,
                "Devices": [],
                "Privileged": False,
                "PublishAllPorts": True,
                "Sysctls": {"net.ipv4.ip_forward": "1"},
                "Mounts": [{"Type": "bind", "Source": "/etc", "Target": "/host/etc", "ReadOnly": True}],
                "MaskedPaths": None,
            },
            "NetworkingConfig": {
                "EndpointsConfig": {
                    "other": {"Aliases": ["o"]},
                    "demo": {
                        "IPAMConfig": {"IPv4Address": "172.20.0.7"},
                        "Links": None,
                        "Aliases": ["web2"],
                        "MacAddress": "02:42:ac:14:00:07",
                        "DriverOpts": {"k": "v"},
                        "GwPriority": 5,
                        "NetworkID": "",
                    },
                }
            },
        },
        name="web",
    )
    assert (api.status, answer["Warnings"]) == (201, [])
    config = api.containers.get("web").config
    assert (config.command, config.entrypoint, config.environment, config.user) == (("top", "-b"), (), ("A=b",), "1000")
    assert (config.tty, config.stdin, config.stdin_once, config.attach_stdin, config.auto_remove) == (True, True, True, True, True)
    assert (config.hostname, config.working_directory, config.labels) == ("h", "/tmp", {"l": "1"})
    assert (config.stop_signal, config.stop_timeout, config.sysctls) == ("SIGINT", 3, {"net.ipv4.ip_forward": "1"})
    assert config.mounts == (
        Mount(source="/srv", target="/data", read_only=True),
        Mount(source="/etc", target="/host/etc", read_only=True),
    )
    assert config.dns == DnsConfig(servers=("9.9.9.9",), search=("example.org",), options=("ndots:2",), extra_hosts=("db:10.0.0.7",))
    assert config.ports == (
        PortBinding(protocol="tcp", port=80, host_ip="127.0.0.1", host_port=8080),
        PortBinding(protocol="tcp", port=80, host_port=9000, host_port_end=9010),
        PortBinding(protocol="udp", port=53),
    )
    assert config.exposed == ("80/tcp", "53/udp")
    assert (config.network_mode, config.capabilities_add) == ("demo", ("NET_ADMIN",))
    assert config.attachments == (
        Attachment(
            network="demo", address="172.20.0.7", mac="02:42:ac:14:00:07", aliases=("web2",), gateway_priority=5, options={"k": "v"}
        ),
        Attachment(network="other", aliases=("o",)),
    )


@pytest.mark.parametrize(
    ("mode", "endpoints", "networks"),
    [
        ("", {}, ["bridge"]),
        ("default", {"default": {}}, ["bridge"]),
        ("bridge", {"bridge": {}}, ["bridge"]),
        ("default", {"demo": {}}, ["demo"]),
        ("demo", {}, ["demo"]),
        ("demo", {"bridge": {}, "demo": {}}, ["demo", "bridge"]),
        ("host", {"host": {}}, []),
        ("none", {}, []),
    ],
)
async def test_which_networks_a_container_is_on(api: Api, mode: str, endpoints: dict[str, Any], networks: list[str]) -> None:
    await api.ask("POST", "/networks/create", {"Name": "demo"})
    await create(api, {"HostConfig": {"NetworkMode": mode}, "NetworkingConfig": {"EndpointsConfig": endpoints}}, name="web")
    config = api.containers.get("web").config
    assert [attachment.network for attachment in config.attachments] == networks
    assert config.network_mode == (mode or "default")


async def test_a_network_named_by_id_and_by_name_is_one(api: Api) -> None:
    identity = (await api.ask("POST", "/networks/create", {"Name": "demo"}))["Id"]
    endpoints = {identity: {"Aliases": ["a"]}}
    await create(api, {"HostConfig": {"NetworkMode": "demo"}, "NetworkingConfig": {"EndpointsConfig": endpoints}}, name="web")
    assert api.containers.get("web").config.attachments == (Attachment(network=identity, aliases=("a",)),)


async def test_the_mac_beside_the_networks_is_the_main_networks(api: Api) -> None:
    """Clients before 1.44."""
    await create(api, {"MacAddress": "02:42:00:00:00:01"}, name="old")
    assert api.containers.get("old").config.attachments == (Attachment(network="bridge", mac="02:42:00:00:00:01"),)
    both = {"MacAddress": "02:42:00:00:00:01", "NetworkingConfig": {"EndpointsConfig": {"bridge": {"MacAddress": "02:42:00:00:00:02"}}}}
    answer = await create(api, both)
    assert api.status == 400
    assert answer["message"].startswith("the container-wide MAC address must match")


async def test_the_network_of_another_container(api: Api) -> None:
    identity = await api.run("web")
    await create(api, {"HostConfig": {"NetworkMode": "container:web"}}, name="beside")
    assert api.containers.get("beside").config.network_mode == f"container:{identity}"
    answer = await create(api, {"HostConfig": {"NetworkMode": "container:nobody"}})
    assert (api.status, answer) == (404, {"message": "No such container: nobody"})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"Image": ""}, "no image specified: give the name of an image, or `host` for the host's own file system"),
        ({"Cmd": 5}, "invalid JSON: Cmd: expected str | array, got int"),
        ({"HostConfig": {"PortBindings": {"x/tcp": [{"HostPort": "1"}]}}}, "invalid containerPort: x"),
        ({"HostConfig": {"PortBindings": {"0/tcp": [{"HostPort": "1"}]}}}, "invalid containerPort: 0"),
        ({"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "70000"}]}}}, "invalid hostPort: 70000"),
        ({"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "20-10"}]}}}, "invalid hostPort: 20-10"),
        ({"HostConfig": {"PortBindings": {"80/icmp": [{"HostPort": "1"}]}}}, "invalid proto: icmp"),
        ({"HostConfig": {"PortBindings": {"80": [{"HostIp": "here"}]}}}, "invalid IP address: here"),
        (
            {"HostConfig": {"PortBindings": {"80": [{"HostIp": "fe80::11"}]}}},
            "invalid IP address: fe80::11: a link-local address belongs to one link only and cannot be published on:"
            " give another address of this host, or [::] for all of them",
        ),
        ({"ExposedPorts": {"http": {}}}, "Invalid port: http"),
        ({"HostConfig": {"Binds": ["/a"]}}, "invalid volume specification: '/a'"),
        ({"HostConfig": {"Binds": ["/a:b"]}}, "invalid mount path: 'b' mount path must be absolute"),
        ({"HostConfig": {"Binds": ["/a:/"]}}, "invalid specification: destination can't be '/'"),
        ({"HostConfig": {"Binds": ["/a:/b:wild"]}}, "invalid mode: wild"),
        ({"HostConfig": {"Binds": ["/a:/b", "/c:/b"]}}, "Duplicate mount point: /b"),
        ({"HostConfig": {"Binds": ["vol:/b"]}}, "named volumes are not supported: give 'vol' as an absolute path on the host"),
        (
            {"HostConfig": {"Mounts": [{"Type": "tmpfs", "Target": "/x"}]}},
            'mount type "tmpfs" is not supported: netplug has bind mounts only',
        ),
        ({"HostConfig": {"Dns": ["here"]}}, "here is not an ip address"),
        ({"HostConfig": {"ExtraHosts": ["db"]}}, 'bad format for add-host: "db"'),
        ({"HostConfig": {"ExtraHosts": ["db:there"]}}, 'invalid IP address in add-host: "there"'),
        (
            {"MacAddress": "02:42:00:00:00:01", "HostConfig": {"NetworkMode": "host"}},
            "conflicting options: mac-address and the network mode",
        ),
        (
            {"HostConfig": {"NetworkMode": "host", "Links": ["a:b"]}},
            "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
        ),
        (
            {"NetworkingConfig": {"EndpointsConfig": {"bridge": {"IPAMConfig": {"IPv6Address": "10.0.0.2"}}}}},
            "invalid IPv6 address: 10.0.0.2",
        ),
        (
            {
                "HostConfig": {"NetworkMode": "none"},
                "NetworkingConfig": {"EndpointsConfig": {"none": {"IPAMConfig": {"IPv6Address": "fd00::2"}}}},
            },
            "user specified IP address is supported on user defined networks only",
        ),
    ],
)
async def test_bodies_that_make_no_sense(api: Api, body: dict[str, Any], message: str) -> None:
    assert await refusal(api, body) == message


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ({"HostConfig": {"ExtraHosts": ["a\nb:1.2.3.4"]}}, r"add-host 'a\nb:1.2.3.4'"),
        ({"HostConfig": {"ExtraHosts": ["a b:1.2.3.4"]}}, "add-host 'a b:1.2.3.4'"),
        ({"HostConfig": {"Dns": ["fe80::1%a\nnameserver"]}}, r"DNS server 'fe80::1%a\nnameserver'"),
        ({"HostConfig": {"DnsSearch": ["fine", "a\nnameserver 6.6.6.6"]}}, r"DNS search domain 'a\nnameserver 6.6.6.6'"),
        ({"HostConfig": {"DnsOptions": ["x\x85y"]}}, r"DNS option 'x\x85y'"),
        ({"Domainname": "d\u2028e"}, r"domain name 'd\u2028e'"),
        ({"HostConfig": {"Links": ["web:a\tb"]}}, r"link 'web:a\tb'"),
        ({"NetworkingConfig": {"EndpointsConfig": {"demo": {"Links": ["web:a\nb"]}}}}, r"link 'web:a\nb'"),
    ],
)
async def test_a_word_stays_one_where_it_is_written(api: Api, body: dict[str, Any], what: str) -> None:
    """In a container's hosts and resolv.conf a blank begins the next word, and a line's end the next line."""
    assert await refusal(api, body) == f"invalid {what}: white space and control characters are not allowed"


@pytest.mark.parametrize(
    ("body", "clash"),
    [
        ({"Hostname": "h"}, "hostname and the network mode"),
        ({"HostConfig": {"Dns": ["9.9.9.9"]}}, "dns and the network mode"),
        ({"HostConfig": {"ExtraHosts": ["a:10.0.0.1"]}}, "custom host-to-IP mapping and the network mode"),
        ({"HostConfig": {"PortBindings": {"80": [{}]}}}, "port publishing and the container type network mode"),
        ({"ExposedPorts": {"80": {}}}, "port exposing and the container type network mode"),
    ],
)
async def test_what_a_shared_namespace_has_not(api: Api, body: dict[str, Any], clash: str) -> None:
    await api.run("web")
    body = {**body, "HostConfig": {**body.get("HostConfig", {}), "NetworkMode": "container:web"}}
    assert (await create(api, body), api.status) == ({"message": f"conflicting options: {clash}"}, 400)


async def test_what_is_not_supported_is_said(api: Api) -> None:
    """Silence would be a promise."""
    answer = await create(
        api,
        {
            "Healthcheck": {"Test": ["CMD", "true"]},
            "HostConfig": {
                "Memory": 1 << 20,
                "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0},
                "Devices": [{"PathOnHost": "/dev/kvm"}],
                "Invented": {"Later": True},
                "ShmSize": 64 << 20,
            },
            "NetworkingConfig": {"EndpointsConfig": {"bridge": {"NetworkID": "copied", "Invented": 1}}},
        },
    )
    assert api.status == 201
    assert answer["Warnings"] == [
        "netplug does not support --health-cmd: it has no effect",
        "netplug does not support --memory: it has no effect",
        "netplug does not support --restart: it has no effect",
        "netplug does not support --device: it has no effect",
        "netplug does not support Invented: it has no effect",
        "netplug does not support Invented of a network: it has no effect",
    ]


async def test_ports_of_the_hosts_network_are_discarded(api: Api) -> None:
    host = {"NetworkMode": "host", "PortBindings": {"80": [{"HostPort": "80"}]}}
    answer = await create(api, {"HostConfig": host}, name="web")
    assert answer["Warnings"] == ["Published ports are discarded when using host network mode"]
    assert api.containers.get("web").config.ports == ()


async def test_the_hosts_own_file_system_is_said_to_be_open(api: Api) -> None:
    answer = await create(api, {"Image": "host"})
    assert answer["Warnings"] == ["image host is this machine's own file system, read-only: its containers can read every file of the host"]


async def test_what_the_image_says(api: Api) -> None:
    await create(api, {"Image": "server", "HostConfig": {"PublishAllPorts": True}}, name="web")
    config = api.containers.get("web").config
    assert (config.exposed, config.ports) == (("80/tcp",), (PortBinding(protocol="tcp", port=80),))
    await create(api, {"Image": "server", "Entrypoint": ["sh"]}, name="debug")
    await create(api, {"Image": "server", "Cmd": ["-q"]}, name="quiet")
    commands = {line["Names"][0]: line["Command"] for line in await api.ask("GET", "/containers/json", all="1")}
    assert commands == {"/web": "serve -v", "/debug": "sh", "/quiet": "serve -q"}


async def test_an_image_that_is_not_there(api: Api) -> None:
    assert await create(api, {"Image": "nginx"}) == {"message": "No such image: nginx"}
    assert api.status == 404


async def test_a_map_keeps_its_keys_where_the_value_is_null(api: Api) -> None:
    """Go reads such a null as a zero value; the name is what counts."""
    await api.ask("POST", "/networks/create", {"Name": "demo"})
    body = {
        "Labels": {"a": None},
        "ExposedPorts": {"80/tcp": None},
        "HostConfig": {"NetworkMode": "bridge", "PortBindings": {"81/tcp": None}, "Dns": None},
        "NetworkingConfig": {"EndpointsConfig": {"bridge": None, "demo": None, "Labels": {"Aliases": None}}},
    }
    await create(api, body, name="web")
    config = api.containers.get("web").config
    assert (config.labels, config.exposed, config.ports, config.dns.servers) == ({"a": ""}, ("80/tcp",), (), ())
    assert [attachment.network for attachment in config.attachments] == ["bridge", "demo", "Labels"]
