"""Eleven scenarios: the command, and what it asks of the firewall as the bridge driver plans it. Ids, names and MACs are fixed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from netplug.model import Endpoint, Network, PoolConfig, PortBinding, Sandbox, mac_of
from netplug.plan import DnsRedirect, FirewallOp, Plan
from netplug_drivers.bridge import Bridge

OPTION = "com.docker.network.bridge."
SANDBOX = "/run/netplug/netns/web"
_BRIDGE = Bridge()

Ops = tuple[FirewallOp, ...]


@dataclass(frozen=True)
class Scenario:
    """`before` is there already; `adds` is what is shown. `inside`: of the container's namespace."""

    title: str
    commands: tuple[str, ...]
    about: str
    before: Ops = ()
    adds: Ops = ()
    inside: tuple[DnsRedirect, ...] = ()


def network(name: str = "demo", subnets: Iterable[str] = ("172.18.0.0/16",), **fields: Any) -> Network:
    options = {f"{OPTION}name": f"br-{name}", **fields.pop("options", {})}
    pools = tuple(PoolConfig(subnet=subnet, gateway=_address(subnet, 1)) for subnet in subnets)
    ipv6 = any(":" in pool.subnet for pool in pools)
    return Network(id="3a" * 32, name=name, driver="bridge", created="", ipv6=ipv6, pools=pools, options=options, **fields)


def endpoint(name: str, of: Network, number: int = 2, ports: Sequence[PortBinding] = ()) -> Endpoint:
    given = {("address6" if ":" in pool.subnet else "address"): _address(pool.subnet, number) + _prefix(pool.subnet) for pool in of.pools}
    mac = mac_of(given.get("address", ""), "5b" * 32)
    identity = {"id": "5b" * 32, "network": of.id, "sandbox": "7c" * 32, "created": "", "container_name": name}
    return msgspec.convert({**identity, **given, "mac": mac, "host_interface": f"veth-{name}", "ports": tuple(ports)}, Endpoint)


def port(number: int, host_port: int, host_ip: str = "0.0.0.0", count: int = 1) -> PortBinding:
    return PortBinding(protocol="tcp", port=number, host_ip=host_ip, host_port=host_port, count=count)


def made(of: Network) -> Ops:
    return _rules(_BRIDGE.create_network(of))


def joined(of: Network, *endpoints: Endpoint) -> Ops:
    box = Sandbox(id="7c" * 32, created="", name="web", namespace=SANDBOX, cookie=0, incarnation="")
    return tuple(op for one in endpoints for op in _rules(_BRIDGE.join(of, one, box)))


def published(of: Network, one: Endpoint) -> Ops:
    return _rules(_BRIDGE.publish(of, one))


def linked(of: Network, client: Endpoint, server: Endpoint, *ports: int) -> Ops:
    return _rules(_BRIDGE.link(of, client, server, tuple(PortBinding(protocol="tcp", port=number) for number in ports)))


def _rules(plan: Plan) -> Ops:
    return tuple(step for step in plan if isinstance(step, FirewallOp))


def _address(subnet: str, number: int) -> str:
    host = subnet.split("/")[0]
    return f"{host}{number}" if ":" in host else f"{host.rpartition('.')[0]}.{number}"


def _prefix(subnet: str) -> str:
    return "/" + subnet.split("/")[1]


def _port_scenario(title: str, publish: str, about: str, *ports: PortBinding) -> Scenario:
    demo = network()
    web = endpoint("web", demo, ports=ports)
    command = f"netplug run -d --name web --network demo {publish} …"
    return Scenario(title, (command,), about, (*made(demo), *joined(demo, web)), published(demo, web))


def _apart() -> Scenario:
    demo = network(options={f"{OPTION}enable_icc": "false"})
    server, client = endpoint("db", demo, 2), endpoint("web", demo, 3)
    commands = (
        f"netplug network create --opt {OPTION}enable_icc=false demo",
        "netplug run -d --name db --network demo --expose 5432 …",
        "netplug run -d --name web --network demo --link db …",
    )
    about = (
        "Containers on one bridge do not reach one another. A link opens the ports that the linked container exposes, to the one that names"
        " it, and to nobody else."
    )
    adds = (*made(demo), *joined(demo, server, client), *linked(demo, client, server, 5432))
    return Scenario("icc=false, with a link", commands, about, (), adds)


def _modes() -> Scenario:
    routed = network("routed", ("172.18.0.0/16",), options={f"{OPTION}gateway_mode_ipv4": "routed"})
    unprotected = network("open", ("172.19.0.0/16",), options={f"{OPTION}gateway_mode_ipv4": "nat-unprotected"})
    web, other = endpoint("web", routed, ports=(port(80, 0),)), endpoint("other", unprotected, ports=(port(80, 8080),))
    commands = (
        f"netplug network create --opt {OPTION}gateway_mode_ipv4=routed routed",
        f"netplug network create --opt {OPTION}gateway_mode_ipv4=nat-unprotected open",
        "netplug run -d --name web --network routed -p 80 …",
        "netplug run -d --name other --network open -p 8080:80 …",
    )
    about = (
        "`routed`: no NAT; published ports, and ping, are reached by the containers' own addresses, which the routers outside must know."
        " `nat-unprotected`: as usual, and besides every port of every container is reached by its own address."
    )
    before = (*joined(routed, web), *joined(unprotected, other))
    adds = (*made(routed), *made(unprotected), *published(routed, web), *published(unprotected, other))
    return Scenario("Gateway modes: routed and nat-unprotected", commands, about, before, adds)


def _dual() -> Scenario:
    demo = network(subnets=("172.18.0.0/16", "fd42:7::/64"))
    web = endpoint("web", demo, ports=(port(80, 8080), port(80, 8080, "::"), port(81, 8081, "2001:db8::5")))
    commands = (
        "netplug network create --ipv6 --subnet fd42:7::/64 demo",
        "netplug run -d --name web --network demo -p 8080:80 -p [2001:db8::5]:8081:81 …",
    )
    about = (
        "Everything in both IP versions. A port without an address is published in both; `[::1]` has no rule, since a packet from `::1`"
        " cannot leave the host: a small forwarder listens there."
    )
    return Scenario("Dual stack, with IPv6 ports", commands, about, (), (*made(demo), *joined(demo, web), *published(demo, web)))


def _guarded() -> Scenario:
    demo = network(subnets=("172.18.0.0/16", "fd42:7::/64"))
    about = (
        "What comes in by the container's bridge port must carry its own MAC and addresses, in ARP and neighbour discovery too"
        " (`--opt netplug.antispoof=false` leaves it out). In the container, its name server's address leads to where netplug's resolver"
        " listens, so that the container may use port 53 itself."
    )
    command = "netplug run -d --name web --network demo …"
    redirect = DnsRedirect(namespace=SANDBOX, udp_port=41001, tcp_port=41002)
    return Scenario(
        "An endpoint: anti-spoofing, and names", (command,), about, made(demo), joined(demo, endpoint("web", demo)), (redirect,)
    )


def _reached() -> Scenario:
    demo = network(subnets=("172.18.0.0/16", "fd42:7::/64"), options={"netplug.routes": "cluster"})
    commands = ("netplug network create --ipv6 --subnet fd42:7::/64 --opt netplug.routes=cluster demo",)
    about = (
        "Another node of the cluster, reached by eth0, has networks 172.19.0.0/16 and fd42:8::/64 with the same option. Between those and"
        " this one containers use their own addresses, both ways: no masquerading, no protection from direct access. Everybody else is"
        " treated as ever."
    )
    remotes = ("172.19.0.0/16", "fd42:8::/64")
    return Scenario(
        "Routes to other nodes",
        commands,
        about,
        made(demo),
        tuple(op for one in remotes for op in _rules(_BRIDGE.reach(demo, one, "eth0"))),
    )


def _plain() -> Scenario:
    about = "Each network is a few elements: its bridge, how it is reached, its subnet. It is isolated from every other from the start."
    return Scenario("A network", ("netplug network create --subnet 172.18.0.0/16 demo",), about, (), made(network()))


def _internal() -> Scenario:
    about = "Nothing goes in, nothing goes out; its containers reach one another."
    return Scenario("An internal network", ("netplug network create --internal demo",), about, (), made(network(internal=True)))


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("An empty daemon", ("netplug daemon --bridge none",), "The rules that never change, whatever networks there are."),
    _plain(),
    _port_scenario(
        "A published port",
        "-p 8080:80",
        "One element, or one rule: port 8080 of every address of the host leads to the container.",
        port(80, 8080),
    ),
    _port_scenario(
        "A port on 127.0.0.1",
        "-p 127.0.0.1:8080:80",
        "Reached from this host only; that frames from outside cannot claim 127.0.0.0/8 is one of the rules that never change.",
        port(80, 8080, "127.0.0.1"),
    ),
    _port_scenario(
        "A range of ports",
        "-p 8000-8010:8000-8010 -p 9000-9002:7000-7002",
        "A range whose ports keep their numbers is one element, or one rule; where the numbers change, there is one for each port.",
        port(8000, 8000, count=11),
        port(7000, 9000, count=3),
    ),
    _internal(),
    _apart(),
    _modes(),
    _dual(),
    _reached(),
    _guarded(),
)
