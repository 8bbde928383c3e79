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
from typing import Any

import pytest

from tests.hosts import OUTSIDE_ADDRESS, Api, Host, Lan, serving
from tests.kernel.bad_lines import DAEMON, IDLE, LOST, OPTION, PREDEFINED, TABLE, UNKNOWN, complaint


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
