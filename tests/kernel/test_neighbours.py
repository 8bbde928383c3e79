"""Beside other tools whose firewall drops by default: what netplug allows passes, what it refuses and what they drop by name does not."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netplug.cli import demo_hosts
from tests.hosts import OUTSIDE_ADDRESS, Api, ApiError, Host, command
from tests.kernel.daily import IDLE, ask, network, run, serve

PATIENCE = 5.0
OURS = '"netplug"'

UFW = """\
for iptables in iptables ip6tables; do
    $iptables -P FORWARD DROP
    for chain in before-logging before after after-logging reject track; do
        $iptables -N ufw-$chain-forward; $iptables -A FORWARD -j ufw-$chain-forward
    done
    $iptables -N ufw-user-forward
    $iptables -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    $iptables -A ufw-before-forward -j ufw-user-forward
    $iptables -A ufw-after-logging-forward -m limit --limit 3/min -j LOG --log-prefix "[UFW BLOCK] "
done
iptables -A ufw-user-forward -s 203.0.113.77 -j DROP
"""
FIREWALLD = """\
nft -f - <<'EOF'
table inet firewalld {
    chain filter_FWD_public {
        ip saddr 203.0.113.77 drop
        reject with icmpx admin-prohibited
    }
    chain filter_FORWARD_ZONES {
        iifname "uplink" goto filter_FWD_public
        goto filter_FWD_public
    }
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        ct state invalid drop
        jump filter_FORWARD_ZONES
        reject with icmpx admin-prohibited
    }
}
EOF
"""
DOCKER = """\
iptables -P FORWARD DROP
iptables -N DOCKER-USER
iptables -A DOCKER-USER -j RETURN
iptables -I FORWARD -j DOCKER-USER
"""
TOOLS = {
    "iptables": "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP",
    "legacy": "iptables-legacy -P FORWARD DROP; ip6tables-legacy -P FORWARD DROP",
    "reject rule": "iptables -A FORWARD -j REJECT",
    "ufw": UFW,
    "firewalld": FIREWALLD,
    "native": "nft add table ip fw; nft 'add chain ip fw forward { type filter hook forward priority 0; policy drop; }'",
    "docker's chains": DOCKER,
}
FLUSHES = {
    "iptables": "iptables -F",
    "legacy": "iptables-legacy -F",
    "ufw": "for program in iptables ip6tables; do $program -F; $program -X; done\n" + UFW,
    "firewalld": "nft delete table inet firewalld; " + FIREWALLD,
    "docker's chains": "iptables -F DOCKER-USER",
}
"""What the tools do when they are told to reload."""
BOTH_FAMILIES = ("iptables", "legacy", "ufw")
"""The tools that drop IPv6 as well, once what they do is complete: one rule of ours for each family."""


@pytest.fixture
def host(hosts: Callable[..., Host]) -> Host:
    """Of its own: every test leaves rules of another tool."""
    return hosts()


@pytest.fixture
def lively(host: Host) -> Host:
    populate(host)
    return host


def populate(host: Host) -> None:
    network(host, "--subnet", "10.75.0.0/24", "demo")
    network(host, "--subnet", "10.76.0.0/24", "other")
    serve(host, "aa", "--network", "demo", "-p", "8080:80")
    run(host, "bb", "--network", "other", *IDLE)


def shell(host: Host, script: str) -> None:
    host.run("sh", "-ec", script)


def passes(host: Host, sandbox: str = "") -> bool:
    """Out of a container, and in to a published port. `sandbox`: the container's, where no daemon tells."""
    ping = ["nsenter", f"--net={sandbox or host.sandbox('aa')}", "ping", "-c1", "-W1", OUTSIDE_ADDRESS]
    return command(*ping, check=False).returncode == 0 and ask(host.lan.outside.path, host.address, 8080) == OUTSIDE_ADDRESS


def refused(host: Host) -> bool:
    """From one network to another's container, and from outside by the container's own address."""
    address = host.container_address("aa", "demo")
    outside = host.lan.outside
    outside.ip("route", "replace", "10.75.0.0/24", "via", host.address)
    return not ask(host.sandbox("bb"), address, 80) and not ask(outside.path, address, 80)


def rules(host: Host) -> int:
    """How many rules of ours there are in others' tables."""
    listing = host.run("nft", "list", "ruleset").stdout
    legacy = [host.run(program, "-S", check=False).stdout for program in ("iptables-legacy", "ip6tables-legacy") if in_use(host, program)]
    return listing.count(f"comment {OURS}") + sum(text.count("--comment netplug") for text in legacy)


def in_use(host: Host, program: str) -> bool:
    """Asking a legacy program makes its tables."""
    return "filter" in host.run("cat", f"/proc/net/{program.removesuffix('tables-legacy')}_tables_names", check=False).stdout


def wanted(tool: str) -> int:
    """How many rules of ours in its tables let our traffic pass."""
    return 2 if tool in BOTH_FAMILIES else 1


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "this never came true"


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_that_was_there_before(lively: Host, tool: str):
    sandbox = lively.sandbox("aa")
    lively.stop()
    shell(lively, TOOLS[tool])
    assert not passes(lively, sandbox), "a control: the tool does drop"
    lively.start()
    assert passes(lively)
    assert refused(lively)
    assert rules(lively) == wanted(tool)
    lively.restart()
    assert rules(lively) == wanted(tool)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_that_comes_later(lively: Host, tool: str):
    assert rules(lively) == 0
    shell(lively, TOOLS[tool])
    until(lambda: rules(lively) == wanted(tool))
    until(lambda: passes(lively))
    assert refused(lively)


@pytest.mark.parametrize("tool", FLUSHES)
def test_a_tool_that_reloads(lively: Host, tool: str):
    shell(lively, TOOLS[tool])
    until(lambda: rules(lively) == wanted(tool))
    for _ in range(2):
        shell(lively, FLUSHES[tool])
        until(lambda: rules(lively) == wanted(tool))
        until(lambda: passes(lively))
    assert refused(lively)


@pytest.mark.parametrize("tool", ["iptables", "ufw", "docker's chains"])
def test_what_an_admin_drops_by_name_stays_dropped(lively: Host, tool: str):
    """Ours is behind the admin's own rules, wherever those stand."""
    shell(lively, TOOLS[tool])
    chain = {"iptables": "FORWARD", "ufw": "ufw-user-forward", "docker's chains": "DOCKER-USER"}[tool]
    until(lambda: passes(lively))
    lively.run("iptables", "-I", chain, "-s", OUTSIDE_ADDRESS, "-p", "tcp", "-j", "DROP")
    until(lambda: not ask(lively.lan.outside.path, lively.address, 8080))
    lively.restart()
    assert not ask(lively.lan.outside.path, lively.address, 8080)
    assert lively.inside("aa", "ping", "-c1", "-W1", OUTSIDE_ADDRESS, check=False).returncode == 0


def test_a_rule_that_iptables_has_restored_is_known_again(lively: Host):
    """iptables-save and -restore write it in another way."""
    shell(lively, TOOLS["iptables"])
    until(lambda: rules(lively) == 2)
    lively.stop()
    shell(lively, "iptables-save > $0; iptables-restore < $0; rm $0".replace("$0", str(lively.directory / "saved")))
    lively.start()
    assert lively.run("iptables", "-S").stdout.count("--comment netplug") == 1
    assert passes(lively)


def test_what_cannot_be_helped_is_said(lively: Host):
    shell(lively, "nft add table ip fw; nft 'add chain ip fw forward { type filter hook forward priority -20; policy drop; }'")
    until(lambda: "ip fw forward drops what nothing in it allows" in lively.said())
    assert not passes(lively)
    shell(lively, "nft flush table ip fw")
    shell(lively, "nft add rule ip fw forward iifname lo accept")
    until(lambda: "accept" in lively.run("nft", "list", "table", "ip", "fw").stdout)
    assert lively.said().count("ip fw forward drops") == 1
    assert rules(lively) == 0


def test_an_admins_own_table_is_left_alone(lively: Host):
    """It drops some packets, by name: that is his will."""
    shell(lively, "nft add table ip fw; nft 'add chain ip fw forward { type filter hook forward priority 0; }'")
    shell(lively, f"nft add rule ip fw forward ip saddr {OUTSIDE_ADDRESS} tcp dport 80 drop; iptables -P FORWARD DROP")
    until(lambda: rules(lively) == 1)  # in the other table: both have been looked at
    assert "netplug" not in lively.run("nft", "list", "table", "ip", "fw").stdout
    assert not ask(lively.lan.outside.path, lively.address, 8080)


def test_without_a_firewall_of_ours_no_rule_stays(lively: Host):
    for tool in ("iptables", "legacy", "firewalld"):
        shell(lively, TOOLS[tool])
    until(lambda: rules(lively) == 5)
    lively.restart("--iptables=false")
    assert rules(lively) == 0


def test_no_heal_only_says_who_drops(hosts: Callable[..., Host]):
    host = hosts("--no-heal")
    shell(host, TOOLS["iptables"])
    until(lambda: "ip6 filter FORWARD drops what netplug allows" in host.said())
    assert host.said().count("ip filter FORWARD drops what netplug allows") == 1
    assert rules(host) == 0


def test_beside_the_iptables_backend(hosts: Callable[..., Host]):
    """In its own tables it needs no further rule, in others' it does."""
    host = hosts("--firewall-backend", "iptables")
    populate(host)
    shell(host, TOOLS["iptables"])
    assert passes(host)
    shell(host, TOOLS["firewalld"])
    until(lambda: passes(host))
    assert rules(host) == 1
    assert refused(host)


@contextlib.contextmanager
def dockerd(host: Host) -> Iterator[Callable[[], None]]:
    """A real dockerd on the host; yields what restarts it."""
    directory = Path(tempfile.mkdtemp(prefix="np"))
    cgroup = f"/np-neighbour-{os.getpid()}"
    # dockerd writes its key to /etc/docker and containerd a plugin folder to /opt: neither may reach the machine's own.
    script = 'mount -t tmpfs tmpfs /opt && { [ ! -d /etc/docker ] || mount -t tmpfs tmpfs /etc/docker; } && exec "$@"'
    enter = ["unshare", "--mount", "--uts", "--propagation", "private", "sh", "-c", script, "sh"]
    places = ["--data-root", f"{directory}/data", "--exec-root", f"{directory}/exec", "--pidfile", f"{directory}/pid"]
    rest = ["--host", f"unix://{directory}/sock", "--containerd", "", "--storage-driver", "overlay2", "--cgroup-parent", cgroup]
    processes: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        with (directory / "log").open("ab") as log:
            argv = host.argv(*enter, "dockerd", *places, *rest)
            processes.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and processes[-1].poll() is None:
            with contextlib.suppress(OSError, ApiError), contextlib.closing(Api(directory / "sock", timeout=5)) as api:
                api.call("GET", "/_ping")
                return
            time.sleep(0.05)
        raise RuntimeError(f"dockerd did not start: {(directory / 'log').read_text()[-2000:]}")

    def stop() -> None:
        process = processes.pop()
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        demo_hosts.end_processes([process.pid, *demo_hosts.owned_processes(host.namespace.path, directory)])
        process.wait()

    def restart() -> None:
        stop()
        start()

    try:
        start()
        yield restart
    finally:
        if processes:
            stop()
        demo_hosts.remove_tree(directory)
        for hierarchy in ("/sys/fs/cgroup", *map(str, Path("/sys/fs/cgroup").glob("*/"))):
            with contextlib.suppress(OSError):
                os.rmdir(f"{hierarchy}{cgroup}")


def test_a_dockerd_that_was_there_before(host: Host):
    host.stop()
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    with dockerd(host) as restart:
        assert "-P FORWARD DROP" in host.run("iptables", "-S").stdout, "dockerd drops where it has switched forwarding on"
        host.start()
        populate(host)
        assert passes(host)
        assert refused(host)
        restart()
        until(lambda: host.run("iptables", "-S", "DOCKER-USER").stdout.count("--comment netplug") == 1)
        until(lambda: rules(host) == 1)
        assert passes(host)


def test_a_dockerd_that_comes_later(lively: Host):
    with dockerd(lively) as restart:
        lively.run("iptables", "-P", "FORWARD", "DROP")  # as it does where it has switched forwarding on
        until(lambda: passes(lively))
        assert refused(lively)
        restart()
        until(lambda: "--comment netplug" in lively.run("iptables", "-S", "DOCKER-USER").stdout)
        until(lambda: rules(lively) == 1)
        assert passes(lively)
