"""macvlan networks: containers that are members of the LAN, seen from beside them, from outside, and from another host.

This runs also where the kernel has no dummy, VLAN or ipvlan: then an ifb takes the dummy's place, and the others are refused.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netplug.kernel import stacked
from netplug.kernel.netlink import Socket
from netplug.plan import LINK_GROUP
from tests.differences import differences
from tests.hosts import INTERNET_ADDRESS, OUTSIDE_ADDRESS, Host, Lan, Namespace, command, namespace_state, serving
from tests.kernel.daily import IDLE, address, ask, network, run, serve
from tests.kernel.test_explain import explained, paste

SUBNET = "203.0.113.0/24"
PAGE = Path(__file__).parents[2] / "docs/macvlan.md"


def flat(host: Host, name: str, *arguments: str, parent: str = "uplink", ip_range: str = "203.0.113.128/27") -> None:
    """A macvlan network that is a part of the LAN."""
    options = ("-d", "macvlan", "--subnet", SUBNET, "--ip-range", ip_range, "--gateway", OUTSIDE_ADDRESS, "-o", f"parent={parent}")
    network(host, *options, *arguments, name)


def alone(host: Host, name: str, *arguments: str) -> None:
    network(host, "-d", "macvlan", *arguments, name)


def refused(host: Host, *arguments: str) -> str:
    done = host.netplug(*arguments)
    assert done.returncode != 0, done.stdout
    (line,) = [line for line in done.stderr.splitlines() if "Error response from daemon: " in line]
    return line


def link(host: Host, container: str, name: str = "eth0") -> dict[str, Any]:
    shown = host.inside(container, "ip", "-j", "-d", "link", "show", name, check=False).stdout
    return dict(json.loads(shown)[0]) if shown else {}


def default_routes(host: Host, container: str) -> list[str]:
    return [route["gateway"] for route in json.loads(host.inside(container, "ip", "-j", "route", "show", "default").stdout)]


def mac_as_seen(namespace: Namespace, address: str) -> str:
    neighbours = json.loads(namespace.run("ip", "-j", "neigh", "show", address).stdout)
    return str(neighbours[0].get("lladdr", "")) if neighbours else ""


def pings(host: Host, container: str, target: str) -> bool:
    return host.inside(container, "ping", "-n", "-c1", "-W1", target, check=False).returncode == 0


def test_containers_are_members_of_the_lan(host: Host, lan: Lan):
    before = host.state()
    flat(host, "flat")
    serve(host, "web", "--network", "flat", "-p", "8080:80")
    run(host, "client", "--network", "flat", *IDLE)
    web, client = address(host, "web", "flat"), address(host, "client", "flat")
    assert (web, client) == ("203.0.113.128", "203.0.113.129")

    assert ask(host.sandbox("client"), web, 80) == client
    assert ask(lan.outside.path, web, 80) == OUTSIDE_ADDRESS, "not translated, and not by way of the host"
    assert mac_as_seen(lan.outside, web) == host.container("web")["NetworkSettings"]["Networks"]["flat"]["MacAddress"]
    with serving(lan.outside, 7):
        assert ask(host.sandbox("client"), OUTSIDE_ADDRESS, 7) == client
        assert ask(host.sandbox("client"), INTERNET_ADDRESS, 7) == client, "by its own default route"
    assert host.netplug("exec", "client", "getent", "hosts", "web").stdout.split()[0] == web
    assert ask(lan.outside.path, host.address, 8080) == "", "-p is ignored"
    assert ask(host.namespace.path, web, 80) == "", "the host itself does not reach its own by the parent: docs/macvlan.md"

    shown = link(host, "web")
    assert (shown["group"], shown["linkinfo"]["info_data"]["mode"], shown["mtu"]) == (str(LINK_GROUP), "bridge", 1500)
    assert re.fullmatch(r"netplug:[0-9a-f]{12}/[0-9a-f]{12}", shown["ifalias"])
    assert host.netplug("rm", "-f", "web", "client").returncode == 0
    assert host.netplug("network", "rm", "flat").returncode == 0
    assert list(differences(host.state(), before)) == []


def test_two_hosts_have_one_subnet(hosts: Callable[..., Host], lan: Lan):
    """As one LAN: each host hands out a range of its own."""
    one, two = hosts(), hosts()
    flat(one, "flat", ip_range="203.0.113.64/27")
    flat(two, "flat", ip_range="203.0.113.96/27")
    serve(one, "web", "--network", "flat")
    serve(two, "api", "--network", "flat")
    web, api = address(one, "web", "flat"), address(two, "api", "flat")
    assert ask(two.sandbox("api"), web, 80) == api
    assert ask(one.sandbox("web"), api, 80) == web
    assert ask(two.namespace.path, web, 80) == two.address, "another host does reach it"


def hairpin(lan: Lan, host: Host, on: bool) -> None:
    lan.switch.run("bridge", "link", "set", "dev", f"h{host.address.rpartition('.')[2]}", "hairpin", "on" if on else "off")


@pytest.mark.parametrize(("mode", "directly", "by_the_switch"), [("bridge", True, True), ("private", False, False), ("vepa", False, True)])
def test_who_reaches_whom_is_the_modes_choice(host: Host, lan: Lan, mode: str, directly: bool, by_the_switch: bool):
    """With a switch as they are, and with one that sends frames back where they came from."""
    flat(host, "flat", "-o", f"macvlan_mode={mode}")
    serve(host, "web", "--network", "flat")
    run(host, "client", "--network", "flat", *IDLE)
    web, client = address(host, "web", "flat"), address(host, "client", "flat")
    assert link(host, "web")["linkinfo"]["info_data"]["mode"] == mode
    for turned, reached in ((False, directly), (True, by_the_switch)):
        hairpin(lan, host, turned)
        host.inside("client", "ip", "neigh", "flush", "dev", "eth0")
        assert ask(host.sandbox("client"), web, 80) == (client if reached else ""), f"hairpin {turned}"
        assert ask(lan.outside.path, web, 80) == OUTSIDE_ADDRESS


def test_passthru_gives_the_parent_to_one_container(host: Host, lan: Lan):
    """A second link of the host on the LAN, which the container has for itself: its MAC is the container's as long as that has it."""
    lan.switch.ip("link", "add", "spare", "up", "master", "lan0", "type", "veth", "peer", "name", "spare", "netns", host.namespace.name)
    host.namespace.ip("link", "set", "spare", "up")
    own_mac = json.loads(host.run("ip", "-j", "link", "show", "spare").stdout)[0]["address"]
    flat(host, "whole", "-o", "macvlan_mode=passthru", parent="spare")
    assert refused(host, "network", "create", "-d", "macvlan", "-o", "parent=spare", "second").startswith(
        "Error response from daemon: network whole ("
    )
    serve(host, "web", "--network", "whole")
    web = address(host, "web", "whole")
    assert ask(lan.outside.path, web, 80) == OUTSIDE_ADDRESS
    assert mac_as_seen(lan.outside, web) == host.container("web")["NetworkSettings"]["Networks"]["whole"]["MacAddress"]
    said = refused(host, "run", "-d", "--network", "whole", *IDLE)
    assert "create macvlan eth0 on parent interface spare: mode passthru gives all of spare to one container" in said
    assert host.netplug("rm", "-f", "web").returncode == 0
    assert json.loads(host.run("ip", "-j", "link", "show", "spare").stdout)[0]["address"] == own_mac


def test_networks_share_a_parent(host: Host):
    flat(host, "flat")
    network(host, "-d", "macvlan", "--subnet", "10.77.0.0/24", "-o", "parent=uplink", "other")
    run(host, "one", "--network", "flat", *IDLE)
    run(host, "two", "--network", "other", *IDLE)
    assert default_routes(host, "two") == ["10.77.0.1"], "the LAN's router has the first address, where nobody says otherwise"
    said = refused(host, "network", "create", "-d", "macvlan", "-o", "parent=uplink", "-o", "macvlan_mode=passthru", "whole")
    assert re.search(r"network (flat|other) \([0-9a-f]{12}\) is already using parent interface uplink", said)


def test_without_a_parent_they_have_one_another_and_nobody_else(host: Host, lan: Lan):
    before = host.state()
    alone(host, "alone")
    serve(host, "web", "--network", "alone")
    run(host, "client", "--network", "alone", *IDLE)
    web = address(host, "web", "alone")
    assert ask(host.sandbox("client"), web, 80) == address(host, "client", "alone")
    assert ask(host.namespace.path, web, 80) == ""
    assert default_routes(host, "client") == []
    (made,) = [one for one in host.state()["host"]["links"] if one["name"].startswith("dm-")]
    assert (made["group"], made["kind"] in ("dummy", "ifb"), made["up"]) == (str(LINK_GROUP), True, True)
    assert host.netplug("rm", "-f", "web", "client").returncode == 0
    assert host.netplug("network", "rm", "alone").returncode == 0
    assert list(differences(host.state(), before)) == []


def test_internal_means_no_way_out(host: Host, lan: Lan):
    flat(host, "inner", "--internal")
    run(host, "client", "--network", "inner", *IDLE)
    assert default_routes(host, "client") == []
    with serving(lan.outside, 7):
        assert ask(host.sandbox("client"), INTERNET_ADDRESS, 7) == ""


def test_connect_and_disconnect_while_it_runs(host: Host, lan: Lan):
    """Beside a bridge network: the default route goes by the network's name, as ever; no link stays behind."""
    network(host, "--subnet", "10.90.0.0/24", "zeta")
    flat(host, "flat")
    serve(host, "web", "--network", "zeta")
    mac = "02:00:00:00:00:77"
    done = host.netplug("network", "connect", "--ip", "203.0.113.150", "--alias", "www", "flat", "web")
    assert done.returncode == 0, done.stderr
    assert default_routes(host, "web") == [OUTSIDE_ADDRESS]
    assert ask(lan.outside.path, "203.0.113.150", 80) == OUTSIDE_ADDRESS
    run(host, "client", "--network", "flat", "--mac-address", mac, *IDLE)
    assert link(host, "client")["address"] == mac
    assert host.netplug("exec", "client", "getent", "hosts", "www").stdout.split()[0] == "203.0.113.150"
    for _ in range(3):
        assert host.netplug("network", "disconnect", "flat", "web").returncode == 0
        assert link(host, "web", "eth1") == {}
        assert default_routes(host, "web") == ["10.90.0.1"]
        done = host.netplug("network", "connect", "--ip", "203.0.113.150", "flat", "web")
        assert done.returncode == 0, done.stderr
    assert ask(lan.outside.path, "203.0.113.150", 80) == OUTSIDE_ADDRESS


def test_an_address_is_used_again_at_once(host: Host, lan: Lan):
    """The next owner has the same MAC: the last one's link must be gone when it comes."""
    flat(host, "flat")
    for _ in range(5):
        serve(host, "web", "--network", "flat", "--ip", "203.0.113.140")
        assert ask(lan.outside.path, "203.0.113.140", 80) == OUTSIDE_ADDRESS
        assert host.netplug("rm", "-f", "web").returncode == 0


def test_packets_go_on_while_the_daemon_is_dead_and_what_is_missing_comes_back(host: Host, lan: Lan):
    flat(host, "flat")
    alone(host, "alone", "--subnet", "10.66.0.0/24")
    serve(host, "web", "--network", "flat")
    run(host, "lost", "--network", "flat", "--network", "alone", *IDLE)
    run(host, "beside", "--network", "alone", *IDLE)
    with host.flood(OUTSIDE_ADDRESS, sandbox="web") as flood:
        before = host.state()
        host.kill9()
        assert ask(lan.outside.path, "203.0.113.128", 80) == OUTSIDE_ADDRESS
        host.run("ip", "link", "add", "link", "uplink", "name", "stray", "group", str(LINK_GROUP), "type", "macvlan", "mode", "bridge")
        paths = {path.name: str(path) for path in (host.run_directory / "netns").glob("*")}
        for path in paths.values():  # all but the one that is watched
            if len(json.loads(command("nsenter", f"--net={path}", "ip", "-j", "link").stdout)) == 3:
                command("nsenter", f"--net={path}", "ip", "link", "del", "eth0")
        for made in [one["name"] for one in before["host"]["links"] if one["name"].startswith("dm-")]:
            host.run("ip", "link", "del", made)
        host.start()
    assert flood.lost == []
    after = host.state()
    assert list(differences(without_random_macs(after), without_random_macs(before))) == []
    assert pings(host, "lost", OUTSIDE_ADDRESS)
    assert pings(host, "lost", address(host, "beside", "alone"))


def without_random_macs(state: dict[str, Any]) -> dict[str, Any]:
    """A dummy's is the kernel's choice."""
    for shown in state["host"]["links"]:
        if shown["name"].startswith("dm-"):
            shown.pop("address")
    return state


def test_a_parent_that_goes_and_comes_back(host: Host):
    """Its macvlans go with it. The next start of the container, or of the daemon, puts them back."""
    host.run("ip", "link", "add", "lab0", "up", "type", "bridge")
    flat(host, "flat", parent="lab0")
    run(host, "one", "--network", "flat", *IDLE)
    run(host, "two", "--network", "flat", *IDLE)
    host.run("ip", "link", "del", "lab0")
    assert link(host, "one") == {}
    said = refused(host, "run", "-d", "--network", "flat", *IDLE)
    assert "create macvlan eth0 on parent interface lab0: there is no such interface on this host (there are: uplink)" in said
    host.kill9()
    host.start()
    assert "flat could not be restored: use parent interface lab0: there is no such interface" in host.said()
    host.run("ip", "link", "add", "lab0", "up", "type", "bridge")
    host.kill9()
    host.start()
    assert default_routes(host, "one") == [OUTSIDE_ADDRESS]
    assert pings(host, "one", address(host, "two", "flat"))


def test_parents_that_cannot_be_are_refused(host: Host):
    before = host.state()
    host.run("ip", "link", "add", "lab0", "type", "bridge")
    host.run("ip", "link", "add", "port0", "master", "lab0", "type", "veth", "peer", "name", "port1")

    def said(*options: str) -> str:
        return refused(host, "network", "create", "-d", "macvlan", *(f"-o{option}" for option in options), "wrong")

    daemon = "Error response from daemon: "
    use = daemon + "use parent interface "
    assert said("parent=eth7") == use + "eth7: there is no such interface on this host (there are: uplink, lab0, port1)"
    assert said("parent=port0") == use + "port0: port0 is a port of a bridge, which takes all its packets: give that bridge instead"
    assert said("parent=lo") == daemon + "loopback interface is not a valid macvlan parent link"
    assert "create VLAN eth7.10 on parent interface eth7: there is no such interface" in said("parent=eth7.10")

    flat(host, "flat", parent="port1")
    host.run("ip", "link", "set", "port1", "master", "lab0")
    wrong = refused(host, "run", "-d", "--network", "flat", *IDLE)
    assert "create macvlan eth0 on parent interface port1: port1 is a port of a bridge" in wrong
    wide = "its MTU of 9000 is more than the 1500 of uplink: make its network with -o com.docker.network.driver.mtu=1500, or first: ip link"
    assert wide in said("parent=uplink", "com.docker.network.driver.mtu=9000")
    host.run("ip", "link", "set", "uplink", "mtu", "9000")
    network(host, "-d", "macvlan", "-o", "parent=uplink", "-o", "com.docker.network.driver.mtu=9000", "wide")
    host.run("ip", "link", "set", "uplink", "mtu", "1500")
    assert wide in refused(host, "run", "-d", "--network", "wide", *IDLE)
    host.restart()
    assert "wide" in host.netplug("network", "ls").stdout, "what has been made stays, whatever its parent takes now"
    network(host, "-d", "macvlan", "-o", "parent=uplink", "-o", "com.docker.network.driver.mtu=1400", "narrow")
    run(host, "client", "--network", "narrow", *IDLE)
    assert link(host, "client")["mtu"] == 1400

    host.netplug("rm", "-f", *host.netplug("ps", "-aq").stdout.split(), check=True)
    host.netplug("network", "rm", "flat", "wide", "narrow", check=True)
    host.run("ip", "link", "del", "lab0")
    host.run("ip", "link", "del", "port0")
    assert list(differences(host.state(), before)) == []


def kernel_has(kind: str) -> bool:
    with Socket() as netlink:
        return stacked.known(netlink, kind)


def test_vlan_of_a_parent(host: Host, lan: Lan):
    """Made with the network and removed with it; refused with the reason where the kernel has none."""
    before = host.state()
    arguments = ("network", "create", "-d", "macvlan", "-o", "parent=uplink.10", "tagged")
    if kernel_has("vlan"):
        assert host.netplug(*arguments).returncode == 0
        shown = json.loads(host.run("ip", "-j", "-d", "link", "show", "uplink.10").stdout)[0]
        assert (shown["linkinfo"]["info_data"]["id"], shown["group"], "UP" in shown["flags"]) == (10, str(LINK_GROUP), True)
        run(host, "client", "--network", "tagged", *IDLE)
        assert host.netplug("rm", "-f", "client").returncode == 0
        assert host.netplug("network", "rm", "tagged").returncode == 0
    else:
        assert "create VLAN uplink.10 on parent interface uplink: this kernel has no VLANs (CONFIG_VLAN_8021Q" in refused(host, *arguments)
    assert list(differences(host.state(), before)) == []


def test_a_vlan_of_the_users_stays(host: Host):
    """Any link of that name will do, as with Docker."""
    host.run("ip", "link", "add", "uplink.10", "up", "type", "bridge")
    before = host.state()
    network(host, "-d", "macvlan", "-o", "parent=uplink.10", "tagged")
    run(host, "client", "--network", "tagged", *IDLE)
    assert host.netplug("rm", "-f", "client").returncode == 0
    assert host.netplug("network", "rm", "tagged").returncode == 0
    assert list(differences(host.state(), before)) == []


@pytest.mark.parametrize("mode", ["l2", "l3", "l3s"])
def test_ipvlan(host: Host, lan: Lan, mode: str):
    """Where the kernel has it, two containers reach each other; where not, the network is refused with the reason."""
    before = host.state()
    arguments = ("network", "create", "-d", "ipvlan", "--subnet", "10.78.0.0/24", "-o", "parent=uplink", "-o", f"ipvlan_mode={mode}", "ip")
    if kernel_has("ipvlan"):
        assert host.netplug(*arguments).returncode == 0
        serve(host, "web", "--network", "ip")
        run(host, "client", "--network", "ip", *IDLE)
        assert ask(host.sandbox("client"), address(host, "web", "ip"), 80) == address(host, "client", "ip")
        assert host.netplug("rm", "-f", "web", "client").returncode == 0
        assert host.netplug("network", "rm", "ip").returncode == 0
    else:
        assert "use parent interface uplink: this kernel has no ipvlan (CONFIG_IPVLAN" in refused(host, *arguments)
    assert list(differences(host.state(), before)) == []


def test_asking_the_kernel_what_it_has_changes_nothing(host: Host):
    before = host.state()
    code = (
        "from netplug.kernel import stacked; from netplug.kernel.netlink import Socket\n"
        "print([stacked.known(Socket(), kind) for kind in ('macvlan', 'veth', 'dummy', 'ifb', 'vlan', 'ipvlan', 'nonsense')])"
    )
    told = host.run(sys.executable, "-c", code).stdout
    assert told.startswith("[True, True, ")
    assert told.rstrip().endswith("False]")
    assert list(differences(host.state(), before)) == []


def test_ipv6_on_a_lan(host: Host, lan: Lan):
    lan.outside.ip("-6", "address", "add", "fd42::1/64", "dev", "uplink", "nodad")
    flat(host, "flat", "--ipv6", "--subnet", "fd42::/64", "--gateway", "fd42::1")
    run(host, "client", "--network", "flat", *IDLE)
    run(host, "other", "--network", "flat", *IDLE)
    own = host.container("other")["NetworkSettings"]["Networks"]["flat"]["GlobalIPv6Address"]
    for target in ("fd42::1", own):
        host.inside("client", "ping", "-6", "-n", "-c1", "-W2", target)
    assert json.loads(host.inside("client", "ip", "-6", "-j", "route", "show", "default").stdout)[0]["gateway"] == "fd42::1"


@pytest.fixture
def bare(lan: Lan) -> Iterator[Namespace]:
    """A host with an uplink and nothing else."""
    namespace = Namespace("bare-" + lan.switch.name)
    try:
        lan.plug(namespace, "bare", lan.free_address())
        yield namespace
    finally:
        namespace.remove()


def test_what_is_printed_can_be_pasted(host: Host, lan: Lan, bare: Namespace, tmp_path: Path):
    """The commands of each step, pasted on another host, make the same links there, in sandboxes of the same paths elsewhere."""
    steps: list[tuple[list[str], dict[str, Any]]] = []
    ours = host.run_directory / "netns"

    def state(namespace: str, folder: Path) -> dict[str, Any]:
        shown = namespace_state(namespace)
        links = [one for one in shown["links"] if one["name"].startswith(("dm-", "eth"))]
        for one in links:
            if one["name"].startswith("dm-"):
                one.pop("address")
        inside = [namespace_state(str(path)) for path in sorted(folder.glob("*"))]
        return {"host": links, "sandboxes": [{**one, "nft": []} for one in inside]}

    def do(*arguments: str) -> None:
        done = host.netplug(*arguments)
        assert done.returncode == 0, done.stderr
        steps.append((explained(done.stdout), state(host.namespace.path, ours)))

    do("network", "create", "--explain", "-d", "macvlan", "--subnet", SUBNET, "--gateway", OUTSIDE_ADDRESS, "-o", "parent=uplink", "flat")
    do("network", "create", "--explain", "-d", "macvlan", "-o", "com.docker.network.driver.mtu=1300", "--subnet", "10.66.0.0/24", "alone")
    do("run", "-d", "--explain", "--name", "web", "--ip", "203.0.113.150", "--network", "flat", *IDLE)
    do("network", "connect", "--explain", "alone", "web")
    do("network", "disconnect", "--explain", "alone", "web")
    do("network", "rm", "--explain", "alone")
    do("rm", "-f", "--explain", "web")
    for lines, wanted in steps:
        assert lines
        paste(bare, [line.replace(str(ours), str(tmp_path)) for line in lines])
        assert list(differences(state(bare.path, tmp_path), wanted)) == [], "\n".join(lines)


def test_the_way_from_the_host_that_the_page_shows(host: Host, lan: Lan):
    """The page's own commands, with this host's link and addresses."""
    shown = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (recipe,) = [block for block in shown if "ip link add" in block]
    for written, here in (("192.168.1.192/27", "203.0.113.128/27"), ("192.168.1.9", "203.0.113.9"), ("eth0", "uplink")):
        assert written in recipe
        recipe = recipe.replace(written, here)
    flat(host, "flat")
    serve(host, "web", "--network", "flat")
    assert ask(host.namespace.path, "203.0.113.128", 80) == ""
    subprocess.run(host.argv("sh", "-e"), input=recipe, text=True, check=True, timeout=30)
    assert ask(host.namespace.path, "203.0.113.128", 80) == "203.0.113.9"
    assert ask(lan.outside.path, "203.0.113.128", 80) == OUTSIDE_ADDRESS
