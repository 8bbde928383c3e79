"""What users get wrong: one line on stderr, Docker's sentence where it has one, Docker's exit code, and nothing has changed.

One host serves the whole table: records are compared after each line, the kernel after all of them.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts import OUTSIDE_ADDRESS, Api, Host, Lan, serving

IDLE = "host busybox sleep 1000"
OPTION = "com.docker.network."
DAEMON = "Error response from daemon: "
UNKNOWN, OTHER_NETWORK = "No such container: nope", "Invalid address 10.99.0.9: It does not belong to any of this network's subnets"
OVERLAP, LOST = "Pool overlaps with other one on this address space", "network nope not found"
TAKEN = "port is already allocated (by container web)"
NOT_RUNNING = " is not running"
ONLY_USER_DEFINED = "user specified IP address is supported on user defined networks only"
CONNECTED, PREDEFINED = "endpoint with name web already exists in network demo", "is a pre-defined network and cannot be removed"

NETWORKS = [
    ("network inspect nope", 1, DAEMON + LOST),
    ("network inspect ''", 1, "invalid name or ID: value is empty"),
    ("network rm nope", 1, DAEMON + LOST),
    ("network rm --dry-run nope", 1, DAEMON + LOST),
    ("network connect nope web", 1, DAEMON + LOST),
    ("network connect demo nope", 1, DAEMON + UNKNOWN),
    ("network disconnect nope web", 1, DAEMON + LOST),
    ("network disconnect demo nope", 1, DAEMON + UNKNOWN),
    ("network disconnect lab web", 1, "is not connected to network lab"),
    ("network disconnect demo still", 1, "is not connected to network demo"),
    ("ipam show nope", 1, DAEMON + LOST),
    ("network create demo", 1, DAEMON + "network with name demo already exists"),
    ("network create bridge", 1, DAEMON + "operation is not permitted on predefined bridge network"),
    ("network create host", 1, DAEMON + "operation is not permitted on predefined host network"),
    ("network create none", 1, DAEMON + "operation is not permitted on predefined none network"),
    ("network create ''", 1, DAEMON + "invalid name: name is empty"),
    ("network create 'a b'", 1, "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
    ("network create -- -x", 1, 'invalid network name "-x"'),
    ("network create a/b", 1, 'invalid network name "a/b"'),
    ("network create", 1, '"netplug network create" requires exactly 1 argument.'),
    ("network create --nope bad", 125, "unknown flag: --nope"),
    ("network create --label =x bad", 125, "invalid label '=x': empty name"),
    ("network create --driver nope bad", 1, 'plugin "nope" not found'),
    ("network create --driver host bad", 1, 'only one instance of "host" network is allowed'),
    ("network create --driver none bad", 1, 'only one instance of "none" network is allowed'),
    ("network create --ipam-driver nope bad", 1, 'plugin "nope" not found'),
    ("network create --ipam-driver null --subnet 10.81.0.0/24 bad", 1, "does not handle specific address pool requests"),
    ("network create --scope nope bad", 1, "invalid scope"),
    ("network create --ipv4=false bad", 1, "IPv4 or IPv6 must be enabled"),
    ("network create --ipv4=false --ipv6=false bad", 1, "IPv4 or IPv6 must be enabled"),
    ("network create --ipv6=maybe bad", 125, 'parsing "maybe": invalid syntax'),
    ("network create --opt com.docker.network.enable_ipv6=maybe bad", 1, "is not a valid bool"),
    ("network rm bridge", 1, f"{DAEMON}bridge {PREDEFINED}"),
    ("network rm host", 1, f"{DAEMON}host {PREDEFINED}"),
    ("network rm none", 1, f"{DAEMON}none {PREDEFINED}"),
    ("network rm demo", 1, "error while removing network: network demo id"),
    ("network rm --dry-run demo", 1, "has active endpoints (web)"),
    ("network rm", 1, '"netplug network rm" requires at least 1 argument.'),
    ("network ls --filter nope=1", 1, "invalid filter 'nope'"),
    ("network ls --filter nope", 125, "bad format of filter (expected name=value)"),
    ("network ls --format {{.Nope}}", 1, 'map has no entry for key "Nope"'),
    ("network ls --format {{", 1, "failed to parse template"),
    ("network inspect --format {{nope}} demo", 64, 'function "nope" not defined'),
    ("network prune --force --filter nope=1", 1, "invalid filter 'nope'"),
    ("network nope", 1, "unknown command: netplug network nope"),
]

SUBNETS = [
    ("--subnet 10.81.0.1/24", "invalid subnet 10.81.0.1/24: it should be 10.81.0.0/24"),
    ("--subnet 10.81.0.0", "invalid CIDR address: 10.81.0.0"),
    ("--subnet 300.0.0.0/8", "invalid CIDR address: 300.0.0.0/8"),
    ("--subnet 10.81.0.0/33", "invalid CIDR address: 10.81.0.0/33"),
    ("--subnet nope", "invalid CIDR address: nope"),
    ("--explain --subnet nope", "invalid CIDR address: nope"),
    ("--dry-run --subnet nope", "invalid CIDR address: nope"),
    ("--ipv6 --subnet fd00:81::1/64", "invalid subnet fd00:81::1/64: it should be fd00:81::/64"),
    ("--ipv6 --subnet fd00:81::", "invalid CIDR address: fd00:81::"),
    ("--ipv6 --subnet ff02::/64", "loopback or multicast"),
    ("--ipv6 --subnet fd00:81::/64 --subnet fd00:82::/64", "bridge driver doesn't support multiple subnets"),
    ("--ipv6 --subnet fd00:81::/64 --gateway 10.81.0.1", "no matching subnet for gateway 10.81.0.1"),
    ("--ipv6 --subnet fd00:81::/64 --ip-range fd00:82::/80", "no matching subnet for range fd00:82::/80"),
    ("--subnet 224.0.0.0/24", "loopback or multicast"),
    ("--subnet 127.5.0.0/16", "loopback or multicast"),
    ("--subnet 0.0.0.0/0", "loopback or multicast"),
    ("--subnet 10.70.0.0/24", OVERLAP),
    ("--subnet 10.70.0.128/25", OVERLAP),
    ("--subnet 10.70.0.0/16", OVERLAP),
    ("--subnet 10.200.0.0/16", "covers 10.200.1.0/24, which this host reaches by a route of its own"),
    ("--subnet 203.0.113.0/24", "covers 203.0.113.0/24, which this host reaches by a route of its own"),
    (f"--opt {OPTION}bridge.name=br7 --subnet 203.0.113.0/24", "covers 203.0.113.0/24, which this host reaches by a route of its own"),
    ("--subnet 10.81.0.0/24 --subnet 10.82.0.0/24", "bridge driver doesn't support multiple subnets"),
    ("--subnet 10.81.0.0/24 --subnet 10.81.0.0/25", "multiple overlapping subnet configuration is not supported"),
    ("--subnet 10.81.0.0/24 --gateway 10.82.0.1", "no matching subnet for gateway 10.82.0.1"),
    ("--subnet 10.81.0.0/24 --gateway nope", "no matching subnet for gateway nope"),
    ("--subnet 10.81.0.0/24 --gateway 10.81.0.0", "failed to allocate gateway (10.81.0.0): Address already in use"),
    ("--subnet 10.81.0.0/24 --gateway 10.81.0.255", "failed to allocate gateway (10.81.0.255): Address already in use"),
    ("--gateway 10.82.0.1", "every ip-range or gateway must have a corresponding subnet"),
    ("--ip-range 10.82.0.0/25", "every ip-range or gateway must have a corresponding subnet"),
    ("--subnet 10.81.0.0/24 --ip-range 10.82.0.0/25", "no matching subnet for range 10.82.0.0/25"),
    ("--subnet 10.81.0.0/24 --ip-range 10.81.0.0/16", "no matching subnet for range 10.81.0.0/16"),
    ("--subnet 10.81.0.0/24 --ip-range 10.81.0.1/25", "invalid ip-range 10.81.0.1/25: it should be 10.81.0.0/25"),
    ("--subnet 10.81.0.0/24 --ip-range nope", "no matching subnet for range nope"),
    ("--subnet 10.81.0.0/24 --aux-address a=10.82.0.4", "no matching subnet for aux-address 10.82.0.4"),
    ("--subnet 10.81.0.0/24 --aux-address a=nope", "no matching subnet for aux-address nope"),
    ("--subnet 10.81.0.0/24 --aux-address a=10.81.0.1 --gateway 10.81.0.1", "secondary ip address (a:10.81.0.1): Address already in use"),
    ("--subnet 10.81.0.0/24 --aux-address a=10.81.0.5 --aux-address b=10.81.0.5", "(b:10.81.0.5): Address already in use"),
]

OPTIONS = [
    ("driver.mtu=67", "invalid MTU number: 67 is not between 68 and 65535"),
    ("driver.mtu=65536", "invalid MTU number: 65536 is not between 68 and 65535"),
    ("driver.mtu=nope", 'invalid MTU "nope"'),
    ("driver.mtu=-1", 'invalid MTU "-1"'),
    ("bridge.enable_icc=maybe", '"maybe" is neither true nor false'),
    ("bridge.enable_ip_masquerade=maybe", '"maybe" is neither true nor false'),
    ("bridge.host_binding_ipv4=nope", '"nope" is no IPv4 address'),
    ("container_iface_prefix=a/b", f'invalid {OPTION}container_iface_prefix "a/b"'),
    (f"container_iface_prefix={'a' * 13}", "1 to 12 letters"),
    ("bridge.name=a/b", 'invalid bridge name "a/b"'),
    (f"bridge.name={'a' * 16}", "invalid bridge name"),
    ("bridge.name=..", 'invalid bridge name ".."'),
    ("bridge.name=all", 'invalid bridge name "all"'),
    ("bridge.name=lab0", "networks have same bridge name (the other is lab)"),
    ("bridge.name=netplug0", "networks have same bridge name (the other is bridge)"),
    ("bridge.name=wire0", "wire0 is there already, and it is no bridge"),
    ("bridge.name=uplink", "uplink is there already, and it is no bridge"),
    ("bridge.name=lo", "lo is there already, and it is no bridge"),
]

ATTACHMENTS = [
    ("network connect demo web", 1, CONNECTED),
    ("network connect --dry-run demo web", 1, CONNECTED),
    ("network connect host web", 1, "container cannot be disconnected from host network or connected to host network"),
    ("network connect none web", 1, "container cannot be connected to multiple networks with one of the networks in private (none) mode"),
    ("network connect none still", 1, "container cannot be connected to multiple networks with one of the networks in private (none) mode"),
    ("network connect --ip 172.17.0.99 bridge web", 1, ONLY_USER_DEFINED),
    ("network connect --alias x bridge web", 1, "network-scoped alias is supported only for containers in user defined networks"),
    ("network connect --ip nope lab web", 1, "invalid IPv4 address: nope"),
    ("network connect --ip fd00::9 lab web", 1, "invalid IPv4 address: fd00::9"),
    ("network connect --ip6 nope lab web", 1, "invalid IPv6 address: nope"),
    ("network connect --ip6 10.99.0.9 lab web", 1, "invalid IPv6 address: 10.99.0.9"),
    ("network connect --ip6 fd00::9 lab web", 1, "It does not belong to any of this network's subnets"),
    ("network connect --ip6 fd00::9 bridge web", 1, ONLY_USER_DEFINED),
    ("network connect --ip 10.99.0.9 lab web", 1, OTHER_NETWORK),
    ("network connect --ip 10.71.0.2 tiny web", 1, "Address already in use: 10.71.0.2 belongs to only"),
    ("network connect tiny web", 1, "no available IPv4 addresses on this network's address pools: tiny"),
    ("network connect --dry-run tiny web", 1, "no available IPv4 addresses on this network's address pools: tiny"),
    ("network connect --driver-opt nope lab web", 125, "invalid key value pair format in driver options"),
    ("network connect demo ''", 1, "no container given"),
    ("network connect lab", 1, '"netplug network connect" requires exactly 2 arguments.'),
]

RUNS = [
    ("nope true", 125, "No such image: nope"),
    ("'' true", 125, "no image specified"),
    ("host", 125, "No command specified"),
    ("--nope host true", 125, "unknown flag: --nope"),
    ("--name web host true", 125, 'Conflict. The container name "/web" is already in use by container'),
    ("--name 'a b' host true", 125, "Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
    ("--network nope host true", 125, LOST),
    ("--network container:nope host true", 125, UNKNOWN),
    ("--network container: host true", 125, "invalid container format container:<name|id>"),
    ("--network container:still host true", 125, "cannot join network of a non running container"),
    ("--network demo --network demo host true", 125, 'network "demo" is specified multiple times'),
    ("--network demo --network bridge host true", 125, "cannot attach both user-defined and non-user-defined network-modes"),
    ("--network name=demo,nope=1 host true", 125, "invalid field key nope"),
    ("--network bridge --network-alias x host true", 125, "network-scoped aliases are only supported for user-defined networks"),
    ("--link nope:x host true", 125, UNKNOWN),
    ("--link web:x --network host host true", 125, "host type networking can't be used with links"),
    ("--network demo --ip 10.70.0.10 host true", 125, "Address already in use: 10.70.0.10 belongs to web"),
    ("--network name=demo,ip=10.70.0.10 host true", 125, "Address already in use: 10.70.0.10 belongs to web"),
    ("--network demo --ip 10.70.0.1 host true", 125, "Address already in use: 10.70.0.1 belongs to the gateway"),
    ("--network demo --ip 10.70.0.255 host true", 125, "Address already in use: 10.70.0.255"),
    ("--network demo --ip 10.99.0.9 host true", 125, OTHER_NETWORK),
    ("--network demo --ip nope host true", 125, "invalid IPv4 address: nope"),
    ("--network demo --ip6 10.70.0.9 host true", 125, "invalid IPv6 address: 10.70.0.9"),
    ("--network demo --ip6 fd00::9 host true", 125, "It does not belong to any of this network's subnets"),
    ("--ip6 fd00::9 host true", 125, ONLY_USER_DEFINED),
    ("--network none --ip6 fd00::9 host true", 125, ONLY_USER_DEFINED),
    ("--ip 172.17.0.99 host true", 125, ONLY_USER_DEFINED),
    ("--network none --ip 172.17.0.99 host true", 125, ONLY_USER_DEFINED),
    ("--network host --ip 172.17.0.99 host true", 125, ONLY_USER_DEFINED),
    ("--network tiny host true", 125, "no available IPv4 addresses on this network's address pools: tiny"),
    ("--mac-address nope host true", 125, "nope is not a valid mac address"),
    ("--mac-address 01:00:00:00:00:01 host true", 125, "invalid MAC address: 01:00:00:00:00:01"),
    ("-p 8080:80 host true", 125, f"Bind for 0.0.0.0:8080 failed: {TAKEN}"),
    ("-p 127.0.0.1:8080:80 --network demo host true", 125, f"Bind for 127.0.0.1:8080 failed: {TAKEN}"),
    ("-p 8089:80 host true", 125, "Bind for 0.0.0.0:8089 failed: address already in use on the host (by "),
    ("--name twice -p 8081:80 -p 8081:81 host true", 125, "port is already allocated (by 0.0.0.0:8081->80/tcp of the same container)"),
    ("-p 192.0.2.9:8081:80 host true", 125, "is 192.0.2.9 an address of this host?"),
    ("-p 8082-8081:80 host true", 125, "invalid hostPort: 8082-8081"),
    ("-p 8081-8083:80-81 host true", 125, "invalid ranges specified for container and host Ports: 80-81 and 8081-8083"),
    ("-p 70000:80 host true", 125, "invalid hostPort: 70000"),
    ("-p nope host true", 125, "invalid containerPort: nope"),
    ("-p 80:0 host true", 125, "Invalid port: 0/tcp"),
    ("-p : host true", 125, "no port specified: :<empty>"),
    ("-p 8081:80/nope host true", 125, "invalid proto: nope"),
    ("-p 1.2.3.400:8081:80 host true", 125, "invalid IP address: 1.2.3.400"),
    ("-p 8081:80 --network container:web host true", 125, "port publishing and the container type network mode"),
    ("--expose nope host true", 125, "invalid range format for --expose: nope"),
    ("host nope-no-such-program", 127, "executable file not found in $PATH"),
    ("host /nope/nope", 127, "no such file or directory"),
    ("host /etc/passwd", 126, "permission denied"),
    ("host /etc", 126, "permission denied"),
    ("-w relative host true", 125, "the working directory 'relative' is invalid, it needs to be an absolute path"),
    ("-v nope host true", 125, "invalid volume specification: 'nope'"),
    ("-v nope:/x host true", 125, "named volumes are not supported"),
    ("-v /tmp:x host true", 125, "invalid mount path: 'x' mount path must be absolute"),
    ("-v /tmp:/ host true", 125, "invalid specification: destination can't be '/'"),
    ("-v /tmp:/x:nope host true", 125, "invalid mode: nope"),
    ("-v /tmp:/x -v /etc:/x host true", 125, "Duplicate mount point: /x"),
    ("--hostname 'a b' host true", 125, "invalid hostname format: a b"),
    (f"--hostname {'a' * 65} host true", 125, "invalid hostname format"),
    ("-u nope host true", 125, "unable to find user nope: no matching entries in passwd file"),
    ("-e =x host true", 125, "invalid environment variable: =x"),
    ("--env-file /nope host true", 125, "open /nope: no such file or directory"),
    ("--dns nope host true", 125, "IP address is not correctly formatted: nope"),
    ("--dns-search 'a b' host true", 125, "a b is not a valid domain"),
    ("--add-host nope host true", 125, 'bad format for add-host: "nope"'),
    ("--add-host a:b host true", 125, 'invalid IP address in add-host: "b"'),
    ("--sysctl kernel.panic=1 host true", 125, "is not allowed"),
    ("--cap-add NOPE host true", 125, 'invalid capability: "NOPE"'),
    ("--stop-signal NOPE host true", 125, "Invalid signal: NOPE"),
    ("--stop-timeout nope host true", 125, 'strconv.ParseInt: parsing "nope": invalid syntax'),
    ("-it host true", 1, "the input device is not a TTY"),
]

CONTAINERS = [
    ("inspect nope", 1, "Error: No such object: nope"),
    ("inspect ''", 1, "invalid name or ID: value is empty"),
    ("inspect --format {{.Nope}} web", 1, 'map has no entry for key "Nope"'),
    ("create --name web host true", 125, 'The container name "/web" is already in use'),
    ("stop nope", 1, DAEMON + UNKNOWN),
    ("stop -t nope web", 125, 'strconv.ParseInt: parsing "nope": invalid syntax'),
    ("kill nope", 1, DAEMON + UNKNOWN),
    ("kill still", 1, NOT_RUNNING),
    ("kill -s NOPE web", 1, "Invalid signal: NOPE"),
    ("rm nope", 1, DAEMON + UNKNOWN),
    ("rm web", 1, "Stop the container before attempting removal or force remove"),
    ("rm --dry-run web", 1, "You cannot remove a running container"),
    ("logs nope", 1, DAEMON + UNKNOWN),
    ("logs --since nope web", 1, 'invalid value for "since"'),
    ("wait nope", 1, DAEMON + UNKNOWN),
    ("wait", 1, '"netplug wait" requires at least 1 argument.'),
    ("attach nope", 1, DAEMON + UNKNOWN),
    ("attach still", 1, "You cannot attach to a stopped container, start it first"),
    ("port nope", 1, DAEMON + UNKNOWN),
    ("port web 81", 1, "Error: No public port '81' published for web"),
    ("port web nope", 1, "invalid port (nope)"),
    ("exec nope true", 1, DAEMON + UNKNOWN),
    ("exec still true", 1, NOT_RUNNING),
    ("exec web", 1, '"netplug exec" requires at least 2 arguments.'),
    ("exec web nope-no-such-program", 127, "executable file not found in $PATH"),
    ("exec web /etc/passwd", 126, "permission denied"),
    ("exec -w relative web true", 126, "Cwd must be an absolute path"),
    ("exec -u nope web true", 1, "unable to find user nope"),
    ("ps --filter nope=1", 1, "invalid filter 'nope'"),
    ("ps --filter status=nope", 1, "invalid filter 'status=nope'"),
    ("ps --format {{.Nope}}", 1, 'map has no entry for key "Nope"'),
    ("image rm nope", 1, DAEMON + "No such image: nope"),
    ("image rm host", 1, "it is the host's own file system"),
    ("image import /nope/nope.tar", 1, "open /nope/nope.tar: no such file or directory"),
    ("image import /etc/passwd bad", 1, "This does not look like a tar archive"),
    ("events --since nope", 1, 'invalid value for "since"'),
    ("events --filter nope=1", 1, "invalid filter 'nope'"),
    ("nope", 1, "unknown command: netplug nope"),
    ("--host tcp://127.0.0.1:1 ps", 125, 'unable to parse host "tcp://127.0.0.1:1"'),
    ("--host unix:///nope/sock ps", 1, "Cannot connect to the netplug daemon at unix:///nope/sock. Is the netplug daemon running?"),
    ("--host unix:///nope/sock run host true", 125, "Is the netplug daemon running?"),
]

TABLE = [
    *NETWORKS,
    *((f"network create {flags} bad", 1, sentence) for flags, sentence in SUBNETS),
    *((f"network create --opt {OPTION}{option} bad", 1, sentence) for option, sentence in OPTIONS),
    *ATTACHMENTS,
    *((f"run --rm {arguments}", code, sentence) for arguments, code, sentence in RUNS),
    *CONTAINERS,
]


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """Networks `demo`, `tiny` (full) and `lab` (bridge lab0); containers `web`, `only` and, not started, `still`; 8080 and 8089 taken.

    What is there before the first test must be there after the last one, and no daemon may have written a traceback.
    """
    with Lan("bad") as lan, Host(lan) as host:
        host.namespace.ip("link", "add", "wire0", "type", "veth", "peer", "name", "wire1")
        host.namespace.ip("route", "add", "10.200.1.0/24", "via", OUTSIDE_ADDRESS)
        host.start()
        for line in (
            "network create --subnet 10.70.0.0/24 demo",
            "network create --subnet 10.71.0.0/30 tiny",
            f"network create --subnet 10.72.0.0/24 --opt {OPTION}bridge.name=lab0 lab",
            f"run -d --name web --network demo --ip 10.70.0.10 -p 8080:80 {IDLE}",
            f"run -d --name only --network tiny {IDLE}",
            f"create --name still {IDLE}",
        ):
            host.netplug(*shlex.split(line), check=True)
        with serving(host.namespace, 8089):
            before, processes = host.state(), len(host.processes())
            yield host
            assert host.state() == before
            assert len(host.processes()) == processes
        assert "Traceback" not in host.log.read_text()


def records(host: Host) -> dict[str, Any]:
    """Everything that the daemon keeps, but what the clock changes."""
    containers = host.api("GET", "/containers/json?all=1")
    return {
        "networks": host.api("GET", "/networks"),
        "addresses": host.api("GET", "/netplug/ipam"),
        "containers": [{key: value for key, value in one.items() if key != "Status"} for one in containers],
        "endpoints": {one["Id"]: host.container(one["Id"])["NetworkSettings"] for one in containers},
        "images": host.api("GET", "/images/json"),
    }


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The one line on stderr. A warning about what was asked for and Docker's pointer to the help are no complaints."""
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("WARNING: ", "See 'netplug "))]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "a mistake in netplug" not in done.stderr
    return lines[0]


@pytest.mark.parametrize(("line", "code", "sentence"), TABLE, ids=[line for line, _, _ in TABLE])
def test_one_line_and_nothing_changed(host: Host, line: str, code: int, sentence: str):
    before = records(host)
    done = host.netplug(*shlex.split(line))
    assert sentence in complaint(done)
    assert (done.returncode, done.stdout.strip()) in ((code, ""), (code, "[]"))  # Docker's inspect prints the list of what it found
    assert records(host) == before


def test_each_of_several_names_gets_its_line(host: Host):
    """What can be done is done; every name that failed is said."""
    before = records(host)
    done = host.netplug("network", "rm", "nope", "bridge", "demo")
    said = done.stderr.splitlines()
    assert [done.returncode, said[:2], len(said)] == [1, [DAEMON + LOST, f"{DAEMON}bridge {PREDEFINED}"], 3]
    done = host.netplug("start", "nope", "")
    assert done.stderr.splitlines() == [
        DAEMON + UNKNOWN,
        "invalid name or ID: value is empty",
        "Error: failed to start containers: nope, ",
    ]
    assert records(host) == before


@pytest.mark.parametrize(
    ("make", "listing", "use", "remove", "sentence"),
    [
        (
            "network create --internal {name}",
            "network ls",
            "network inspect",
            "network rm",
            "network {} is ambiguous ({} matches found on ID prefix)",
        ),
        ("create --name {name} host true", "ps -a", "rm", "rm", "Multiple IDs found with provided prefix: {}"),
    ],
    ids=["network", "container"],
)
def test_an_ambiguous_prefix(host: Host, make: str, listing: str, use: str, remove: str, sentence: str):
    """Ids begin with one of 16 digits: among 17, two share theirs."""
    before = records(host)
    made: list[str] = []
    prefix, count = "", 0
    while count < 2:
        made.append(f"name{len(made)}")
        host.netplug(*make.format(name=made[-1]).split(), check=True)
        identities = host.netplug(*listing.split(), "--no-trunc", "-q").stdout.split()
        prefix, count = Counter(identity[0] for identity in identities).most_common(1)[0]
    done = host.netplug(*use.split(), prefix)
    assert (done.returncode, complaint(done)) == (1, DAEMON + sentence.format(prefix, count))
    host.netplug(*remove.split(), *made, check=True)
    assert records(host) == before


def test_networks_are_exhausted(hosts: Callable[..., Host]):
    host = hosts("--default-address-pool", "base=10.60.0.0/22,size=24", "--bip", "10.61.0.1/24")
    for number in range(4):
        host.netplug("network", "create", f"n{number}", check=True)
    before = records(host), host.state()
    done = host.netplug("network", "create", "more")
    assert complaint(done) == (
        DAEMON + "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
    )
    assert (done.returncode, (records(host), host.state())) == (1, before)
    host.netplug("network", "rm", "n2", check=True)
    host.netplug("network", "create", "more", check=True)
    assert host.api("GET", "/networks/more")["IPAM"]["Config"][0]["Subnet"] == "10.60.2.0/24"


def test_pools_pass_over_what_the_host_reaches(hosts: Callable[..., Host]):
    """Also the default bridge, and networks whose bridge has a name of the user's: else the host would lose those routes."""
    host = hosts("--default-address-pool", "base=203.0.112.0/22,size=24")
    host.netplug("network", "create", "--opt", f"{OPTION}bridge.name=lab0", "lab", check=True)
    subnets = [host.api("GET", f"/networks/{name}")["IPAM"]["Config"][0]["Subnet"] for name in ("bridge", "lab")]
    assert subnets == ["203.0.112.0/24", "203.0.114.0/24"]


def test_an_unprivileged_caller(host: Host):
    argv = ["setpriv", "--reuid", "65534", "--clear-groups", sys.executable, "-m", "netplug.cli"]
    done = subprocess.run([*argv, "ps"], env=host.environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert complaint(done) == f"permission denied while trying to connect to the netplug daemon socket at unix://{host.socket}"
    done = subprocess.run(host.argv(*argv, "daemon", "--run-dir", str(host.run_directory)), capture_output=True, text=True, timeout=30)
    assert (done.returncode, complaint(done)) == (1, f"netplug daemon: Permission denied: {host.run_directory}")


FLAGS = [
    ("--bip nope", 1, "invalid --bip nope: an address with its prefix is needed"),
    ("--bip 10.5.0.1", 1, "invalid --bip 10.5.0.1: an address with its prefix is needed"),
    ("--bip 10.5.0.0/24", 1, "failed to allocate gateway (10.5.0.0): Address already in use"),
    ("--bip 203.0.113.99/24", 1, "which this host reaches by a route of its own"),
    ("--bip 10.5.0.1/24 --fixed-cidr 10.6.0.0/25", 1, "it is not part of --bip's subnet 10.5.0.0/24"),
    ("--fixed-cidr nope", 1, "invalid --fixed-cidr nope"),
    ("--default-address-pool nope", 1, "invalid --default-address-pool nope: base=CIDR,size=N is needed"),
    ("--default-address-pool base=10.0.0.0/8,size=4", 1, "invalid --default-address-pool base=10.0.0.0/8,size=4"),
    ("--default-address-pool base=10.0.0.1/8,size=24", 1, "invalid --default-address-pool base=10.0.0.1/8,size=24"),
    ("--firewall-backend nope", 1, 'unknown firewall backend "nope"'),
    ("--mtu 67", 1, "invalid --mtu 67"),
    ("--mtu nope", 125, 'strconv.ParseInt: parsing "nope": invalid syntax'),
    ("--icc=maybe", 125, 'strconv.ParseBool: parsing "maybe": invalid syntax'),
    ("--dns nope", 1, "nope is not an ip address"),
    ("--ip nope", 1, "invalid --ip nope: an IPv4 address of this host is needed"),
    ("--bip6 fd00:5::1/64", 1, "invalid --bip6 fd00:5::1/64: the default bridge has IPv6 only with --ipv6"),
    ("--ipv6 --bip6 nope", 1, "invalid --bip6 nope: an address with its prefix is needed"),
    ("--ipv6 --fixed-cidr-v6 nope", 1, "invalid --fixed-cidr-v6 nope: a subnet is needed"),
    ("--bridge-accept-fwmark nope", 1, 'invalid --bridge-accept-fwmark "nope": MARK or MARK/MASK is needed'),
    ("--default-network-opt nope", 1, "invalid --default-network-opt nope: DRIVER=KEY=VALUE is needed"),
    ("--iptables=false --firewall-backend iptables", 1, "--iptables=false means no firewall of ours"),
    ("--bridge a/b", 1, 'invalid bridge name "a/b"'),
    ("--bridge uplink", 1, "uplink is there already, and it is no bridge"),
    ("--log-level nope", 1, "invalid configuration"),
    ("--runtime nope", 1, "nope is not installed"),
    ("--nope", 125, "unknown flag: --nope"),
    ("nope", 1, '"netplug daemon" accepts no arguments.'),
    ("--socket /nope/netplug.sock", 1, "cannot listen on /nope/netplug.sock: there is no directory /nope"),
    ("--run-dir /dev/null/x", 1, "Not a directory: /dev/null/x"),
    ("--config /nope", 1, "cannot read /nope: No such file or directory"),
    ("--config {nope = 1}", 1, "Object contains unknown field `nope`"),
    ("--config {mtu = 'x'}", 1, "Expected `int`, got `str` - at `$.mtu`"),
    ("--config {= =}", 1, "is not TOML"),
]


@pytest.fixture(scope="module")
def bare_host() -> Iterator[Host]:
    """A host where no daemon ever comes up: its network must stay as it was, but for our tables and chains."""
    with Lan("flags") as lan, Host(lan) as host:
        before = host.state()["host"]["links"]
        yield host
        assert host.state()["host"]["links"] == before
        assert host.processes() == []


@pytest.mark.parametrize(("flags", "code", "sentence"), FLAGS, ids=[flags for flags, _, _ in FLAGS])
def test_a_daemon_that_cannot_start_says_why(bare_host: Host, tmp_path: Path, flags: str, code: int, sentence: str):
    """`{…}` stands for a file with that text."""
    if "{" in flags:
        flag, _, text = flags.partition(" ")
        (tmp_path / "netplug.toml").write_text(text[1:-1] + "\n")
        words = [flag, str(tmp_path / "netplug.toml")]
    else:
        words = shlex.split(flags)
    directories = ["--socket", str(tmp_path / "s"), "--state-dir", str(tmp_path / "state"), "--run-dir", str(bare_host.run_directory)]
    done = bare_host.run(sys.executable, "-m", "netplug.cli", "daemon", *directories, *words, check=False)
    assert sentence in complaint(done)
    assert (done.returncode, done.stdout) == (code, "")


def test_a_second_daemon_is_refused(host: Host):
    directories = ["--socket", str(host.socket), "--state-dir", str(host.state_directory), "--run-dir", str(host.run_directory)]
    done = host.run(sys.executable, "-m", "netplug.cli", "daemon", *directories, check=False)
    assert done.returncode == 1
    assert f"another netplug daemon uses {host.run_directory}" in complaint(done)


BODIES = [
    (b"", "got EOF while reading request body"),
    (b"{", "invalid JSON: "),
    (b"null", "the request body must be an object"),
    (b"[1]", "the request body must be an object"),
    (b"\xff\xfe", "invalid JSON: "),
    (b'{"Name":"\xff"}', "invalid JSON: "),
    (b"[" * 100_000, "invalid JSON: "),
    (b'{"Name":1}', "Name: expected str, got int"),
    (b'{"Name":"bad","Driver":"a\\u0000b"}', "a NUL character in 'a\\x00b'"),
    (b'{"Name":"bad","IPAM":[]}', "IPAM: expected object, got array"),
    (b'{"Name":"bad","IPAM":{"Config":[{"Subnet":1}]}}', "IPAM.Config[0].Subnet: expected str, got int"),
    (b'{"Name":"bad","Options":{"a":1}}', "Options[...]: expected str, got int"),
    (b'{"Name":"bad","Internal":"yes"}', "Internal: expected bool, got str"),
]


@pytest.mark.parametrize(("body", "sentence"), BODIES, ids=[body[:40].decode(errors="replace") for body, _ in BODIES])
def test_a_body_that_is_wrong(host: Host, body: bytes, sentence: str):
    before = records(host)
    status, message = refused(host, "POST", "/networks/create", body)
    assert (status, sentence in message) == (400, True), message
    assert records(host) == before


REQUESTS = [
    ("GET", "/nope", None, 404, "page not found"),
    ("PUT", "/networks", b"{}", 404, "page not found"),
    ("DELETE", "/networks", None, 404, "page not found"),
    ("POST", "/containers/web/json", b"{}", 404, "page not found"),
    ("GET", "/v9/version", None, 404, "page not found"),
    ("GET", "/networks/%00", None, 404, "not found"),
    ("GET", "/networks?filters=nope", None, 400, "invalid filters: nope"),
    ("GET", "/networks?filters=%7B%22name%22%3A1%7D", None, 400, "invalid filters"),
    ("GET", "/containers/json?limit=nope", None, 400, "is not a number"),
    ("GET", "/containers/web/logs", None, 400, "you must choose at least one stream"),
    ("GET", "/events?since=nope", None, 400, "invalid time"),
    ("GET", "/netplug/journal?limit=nope", None, 400, "is not a number"),
    ("GET", "/exec/nope/json", None, 404, "No such exec instance: nope"),
    ("POST", "/containers/web/kill?signal=%00", None, 400, "Invalid signal"),
    ("POST", "/containers/web/resize?h=a&w=b", None, 400, "is not a number"),
    ("POST", "/containers/web/wait?condition=nope", None, 400, 'invalid condition: "nope"'),
    ("POST", "/containers/create", b'{"Image":1}', 400, "Image: expected str, got int"),
    ("POST", "/containers/create", b'{"Image":"host","Cmd":[1]}', 400, "Cmd[0]: expected str, got int"),
    ("POST", "/containers/create", b'{"Image":"host","Cmd":["a\\u0000b"]}', 400, "a NUL character"),
    ("POST", "/containers/create", b'{"Image":"host","HostConfig":{"PortBindings":[]}}', 400, "PortBindings: expected object, got array"),
    ("POST", "/containers/web/exec", b"{}", 400, "No exec command specified"),
    ("POST", "/networks/lab/connect", b"{}", 400, "no container given"),
    ("POST", "/networks/lab/connect", b'{"Container":"web","EndpointConfig":[]}', 400, "EndpointConfig: expected object, got array"),
    ("POST", "/networks/create", b" " * (9 << 20), 413, "the request body is larger than 8388608 bytes"),
]


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "sentence"),
    REQUESTS,
    ids=[f"{method} {path} {(body or b'')[:30]!r}" for method, path, body, *_ in REQUESTS],
)
def test_a_request_that_is_wrong(host: Host, method: str, path: str, body: bytes | None, code: int, sentence: str):
    before = records(host)
    status, message = refused(host, method, path, body)
    assert (status, sentence in message) == (code, True), message
    assert records(host) == before


@pytest.mark.parametrize(
    "sent",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /networks/create HTTP/1.1\r\nHost: x\r\nContent-Length: nope\r\n\r\n",
        b"POST /networks/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /networks/create HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
    ],
)
def test_what_is_no_http(host: Host, sent: bytes):
    """It gets a 400, and others are served on."""
    with contextlib.closing(Api(host.socket, timeout=10)) as connection:
        connection.connect()
        connection.sock.sendall(sent)
        answer = http.client.HTTPResponse(connection.sock)
        answer.begin()
        assert answer.status == 400
    assert host.api("GET", "/networks/demo")["Name"] == "demo"


def refused(host: Host, method: str, path: str, body: bytes | None) -> tuple[int, str]:
    """Status and message of an answer that must be Docker's JSON."""
    with contextlib.closing(Api(host.socket, timeout=20)) as connection:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())["message"]
