"""The daemon as an administrator meets it: its flags, its file, its end, its neighbours; images; and what the commands print."""

from __future__ import annotations

import io
import ipaddress
import json
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netplug.cli.demo_hosts import OUTSIDE_ADDRESS, Lan
from netplug.cli.demo_traffic import serving
from tests.differences import differences
from tests.hosts import Host, command
from tests.kernel.daily import IDLE, ask, network, run, serve

OPTION = "com.docker.network."

pytestmark = pytest.mark.usefixtures("plain_starts")


def daemon(host: Host, *flags: str) -> subprocess.CompletedProcess[str]:
    """Another daemon on this host that is expected not to come up."""
    return command(*host.argv(sys.executable, "-m", "netplug.cli", "daemon", *flags), check=False, timeout=20, env=host.environment)


def subnet(host: Host, name: str) -> str:
    return str(host.api("GET", f"/networks/{name}")["IPAM"]["Config"][0]["Subnet"])


# Its settings


def test_flags_shape_the_default_network_and_new_ones(hosts: Callable[..., Host], lan: Lan):
    pools = ("--default-address-pool", "base=10.200.0.0/16,size=26", "--default-address-pool=base=10.201.0.0/24,size=25")
    bridge = ("--bip", "10.199.0.1/24", "--fixed-cidr", "10.199.0.128/25", "--bridge", "lab0", "--mtu", "1400")
    dns = ("--dns", "198.51.100.7", "--dns-search", "corp.example", "--dns-opt", "timeout:3")
    host = hosts(*pools, *bridge, *dns, "--icc=false", "--ip", "127.0.0.1", "--ip-masq=false")
    serve(host, "web", "-p", "8080:80")
    serve(host, "other")
    own = ipaddress.ip_address(host.container_address("web", "bridge"))
    assert own in ipaddress.ip_network("10.199.0.128/25")
    inspected = host.api("GET", "/networks/bridge")
    assert inspected["IPAM"]["Config"] == [{"Subnet": "10.199.0.0/24", "IPRange": "10.199.0.128/25", "Gateway": "10.199.0.1"}]
    assert inspected["Options"] == {
        f"{OPTION}bridge.default_bridge": "true",
        f"{OPTION}bridge.enable_icc": "false",
        f"{OPTION}bridge.enable_ip_masquerade": "false",
        f"{OPTION}bridge.host_binding_ipv4": "127.0.0.1",
        f"{OPTION}bridge.name": "lab0",
        f"{OPTION}driver.mtu": "1400",
    }
    link = json.loads(host.run("ip", "-j", "address", "show", "lab0").stdout)[0]
    inner = json.loads(host.inside("web", "ip", "-j", "link", "show", "eth0").stdout)[0]
    assert (link["mtu"], inner["mtu"], link["addr_info"][0]["local"]) == (1400, 1400, "10.199.0.1")
    assert ask(host.sandbox("other"), str(own), 80) == "", "no traffic among containers"
    assert ask(host.namespace.path, "127.0.0.1", 8080) != ""
    assert ask(lan.outside.path, host.address, 8080) == "", "published on 127.0.0.1 only"
    lan.outside.ip("route", "add", "10.199.0.0/24", "via", host.address)
    with serving(lan.outside, 7):
        assert ask(host.sandbox("web"), OUTSIDE_ADDRESS, 7) == str(own), "no masquerading"
    resolv_conf = host.netplug("exec", "web", "cat", "/etc/resolv.conf").stdout
    assert resolv_conf == "search corp.example\nnameserver 198.51.100.7\noptions timeout:3\n"
    network(host, "one")
    network(host, "two")
    assert [subnet(host, name) for name in ("one", "two")] == ["10.200.0.0/26", "10.200.0.64/26"]
    # User-defined networks have their own options.
    serve(host, "inner", "--network", "one")
    run(host, "client", "--network", "one", *IDLE)
    assert ask(host.sandbox("client"), host.container_address("inner", "one"), 80) != ""
    # What was made stays as it was made; the default network follows the flags.
    host.netplug("rm", "-f", "web", "other")
    host.flags = ()
    host.restart()
    assert subnet(host, "one") == "10.200.0.0/26"


def test_the_file_has_the_same_names_and_flags_win(hosts: Callable[..., Host], tmp_path: Path):
    config = tmp_path / "netplug.toml"
    config.write_text(
        'bridge = "file0"\nmtu = 1300\nicc = false\ndns-search = ["one.example", "two.example"]\n'
        'default_address_pool = ["base=10.202.0.0/16,size=24"]\n'
    )
    host = hosts("--config", str(config), "--mtu", "1350", "--icc=true")
    options = host.api("GET", "/networks/bridge")["Options"]
    assert options[f"{OPTION}bridge.name"] == "file0"
    assert options[f"{OPTION}driver.mtu"] == "1350"
    assert options[f"{OPTION}bridge.enable_icc"] == "true"
    assert subnet(host, "bridge") == "10.202.0.0/24"
    run(host, "web", *IDLE)
    assert "search one.example two.example\n" in host.netplug("exec", "web", "cat", "/etc/resolv.conf").stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mtu = 'much'", "netplug.toml: Expected `int`, got `str` - at `$.mtu`"),
        ("mtu = 7", "invalid --mtu 7"),
        ("brigde = 'x'", "brigde"),
        ("bip = 'x'", "invalid --bip x"),
        ("fixed_cidr = '10.0.0.0/8'\nbip = '10.1.0.1/24'", "not part of --bip's subnet"),
        ("default_address_pool = ['base=10.0.0.0/16']", "invalid --default-address-pool"),
        ("firewall_backend = 'smoke'", "smoke"),
        ("dns = ['ns.example']", "ns.example is not an ip address"),
        ("mtu = ", "is not TOML"),
        (None, "cannot read"),
    ],
)
def test_a_wrong_setting_is_one_line(host: Host, tmp_path: Path, text: str | None, words: str):
    config = tmp_path / "netplug.toml"
    if text is not None:
        config.write_text(text)
    folders = ("--state-dir", str(tmp_path / "s"), "--run-dir", str(tmp_path / "r"), "--socket", str(tmp_path / "socket"))
    before = host.state()
    done = daemon(host, "--config", str(config), *folders)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("netplug daemon: ")
    assert words in done.stderr
    assert host.state() == before


def test_without_a_default_network(hosts: Callable[..., Host]):
    host = hosts("--bridge", "none")
    assert [link["name"] for link in host.state()["host"]["links"]] == ["lo", "uplink"]
    assert sorted(host.netplug("network", "ls", "--format", "{{.Name}}").stdout.split()) == ["host", "none"]
    refused = host.netplug("run", "-d", *IDLE)
    assert refused.returncode == 125
    assert "network bridge not found" in refused.stderr
    network(host, "demo")
    serve(host, "web", "--network", "demo")
    run(host, "alone", "--network", "none", *IDLE)
    assert host.netplug("exec", "web", "getent", "hosts", "web").returncode == 0


# Its life


def test_a_clean_stop_leaves_everything_running(host: Host, lan: Lan):
    network(host, "demo")
    serve(host, "web", "--network", "demo", "-p", "8080:80")
    before = host.state()
    mode = host.socket.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) & 0o007 == 0, "only root and a group may speak to it"
    assert host.stop() == 0
    assert not host.socket.exists()
    assert ask(lan.outside.path, host.address, 8080) == OUTSIDE_ADDRESS
    refused = host.netplug("ps")
    assert refused.returncode == 1
    assert refused.stderr.splitlines() == [f"Cannot connect to the netplug daemon at unix://{host.socket}. Is the netplug daemon running?"]
    assert host.netplug("run", "host", "true").returncode == 125
    assert "Traceback" not in host.said()
    host.start()
    assert list(differences(host.state(), before)) == []


def test_a_second_daemon_is_refused(host: Host):
    before = host.state()
    folders = ("--state-dir", str(host.state_directory), "--run-dir", str(host.run_directory), "--socket", str(host.socket))
    done = daemon(host, *folders)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"netplug daemon: another netplug daemon uses {host.run_directory}: give this one a network namespace, a --run-dir and a"
        " --state-dir of its own"
    ]
    assert host.state() == before
    assert host.netplug("network", "ls", "-q").returncode == 0


def test_a_second_daemon_in_the_same_namespace_is_refused(host: Host, tmp_path: Path):
    """It would take the links of the first for nobody's: they carry the same mark."""
    run(host, "web", *IDLE)
    before = host.state()
    folders = ("--state-dir", str(tmp_path / "s"), "--run-dir", str(tmp_path / "r"), "--socket", str(tmp_path / "socket"))
    done = daemon(host, *folders)
    assert (done.returncode, done.stdout) == (1, "")
    assert host.daemon is not None
    assert done.stderr.splitlines() == [
        f"netplug daemon: another netplug daemon (pid {host.daemon.pid}) runs in this network namespace, where it has its links and rules:"
        " end it first, or give this one a network namespace of its own"
    ]
    assert host.state() == before
    assert "put back" not in host.said()
    host.restart()
    assert host.state() == before


def test_a_second_daemon_on_the_same_state_is_refused(host: Host, tmp_path: Path):
    folders = ("--state-dir", str(host.state_directory), "--run-dir", str(tmp_path), "--socket", str(tmp_path / "socket"))
    done = daemon(host, *folders)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert str(host.state_directory) in done.stderr


def test_two_daemons_of_one_machine_do_not_disturb_each_other(hosts: Callable[..., Host], lan: Lan):
    one, two = hosts(), hosts()
    for host in (one, two):
        network(host, "--subnet", "10.203.0.0/24", "demo")
        serve(host, "web", "--network", "demo", "--ip", "10.203.0.9", "-p", "8080:80")
        run(host, "client", "--network", "demo", *IDLE)
    before = two.state()
    for host in (one, two):
        assert ask(lan.outside.path, host.address, 8080) == OUTSIDE_ADDRESS
        assert host.netplug("exec", "client", "getent", "hosts", "web").stdout.split()[0] == "10.203.0.9"
        assert len(host.netplug("ps", "-q").stdout.split()) == 2
    with two.flood("10.203.0.9", sandbox="client") as flood, two.lookups("web", "client") as lookups:
        one.kill9()
        one.start()
        assert one.netplug("rm", "-f", "web", "client").returncode == 0
        assert one.netplug("network", "rm", "demo").returncode == 0
        one.stop()
    assert flood.lost == []
    assert lookups.answered == lookups.asked
    assert list(differences(two.state(), before)) == []
    assert ask(lan.outside.path, one.address, 8080) == ""
    assert ask(lan.outside.path, two.address, 8080) == OUTSIDE_ADDRESS
    assert two.netplug("exec", "web", "sh", "-c", "exit 4").returncode == 4


# Images


def tarball(mode: str) -> bytes:
    """A root file system: busybox, a few names for it, and what a program expects to find."""
    binary = Path("/bin/busybox").read_bytes()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as tar:  # type: ignore[call-overload]

        def add(name: str, content: bytes = b"", **attributes: Any) -> None:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            for key, value in attributes.items():
                setattr(entry, key, value)
            tar.addfile(entry, io.BytesIO(content))

        for folder in ("bin", "etc", "tmp", "proc", "sys", "dev", "srv"):
            add(folder, type=tarfile.DIRTYPE)
        add("bin/busybox", binary)
        for name in ("sh", "cat", "echo", "id", "ls", "sleep", "ping", "touch", "env", "pwd", "hostname"):
            add(f"bin/{name}", type=tarfile.SYMTYPE, linkname="busybox")
        add("etc/passwd", b"root:x:0:0::/root:/bin/sh\nweb:x:70:71::/srv:/bin/sh\n", mode=0o644)
        add("etc/group", b"root:x:0:\nweb:x:71:\n", mode=0o644)
    return packed.getvalue()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "tiny.tar"
    path.write_bytes(tarball("w"))
    return path


def test_an_image_is_imported_run_and_removed(host: Host, plain: Path):
    imported = host.netplug(
        "image", "import", "--change", 'CMD ["sh", "-c", "echo by default"]', "--change", "ENV A=1", str(plain), "tiny:1.0"
    )
    assert imported.returncode == 0, imported.stderr
    assert imported.stdout.startswith("sha256:")
    assert host.netplug("run", "--rm", "tiny:1.0").stdout == "by default\n"
    run(host, "web", "tiny:1.0", "sh", "-c", "echo kept > /srv/file; sleep 1000")
    assert host.netplug("exec", "web", "sh", "-c", "echo $A; cat /srv/file; hostname; cat /etc/hostname").stdout.split() == [
        *("1", "kept"),
        *[host.container("web")["Id"][:12]] * 2,
    ]
    assert host.netplug("run", "--rm", "tiny:1.0", "cat", "/srv/file").returncode == 1, "a layer of its own"
    assert host.netplug("run", "--rm", "tiny:1.0", "ping", "-c1", "-W2", host.container_address("web", "bridge")).returncode == 0
    listed = host.netplug("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    assert listed == ["tiny:1.0", "host:latest"]
    header, *rows = host.netplug("images").stdout.splitlines()
    assert header.split("  ")[0] == "REPOSITORY"
    assert [row.split()[:2] for row in rows] == [["tiny", "1.0"], ["host", "latest"]]
    refused = host.netplug("image", "rm", "tiny:1.0")
    assert refused.returncode == 1
    assert "conflict: unable to remove repository reference" in refused.stderr
    assert host.container("web")["Id"][:12] in refused.stderr
    for verb in ("stop", "start"):
        assert host.netplug(verb, "web", *(("-t", "0") if verb == "stop" else ())).returncode == 0
    assert host.netplug("exec", "web", "cat", "/srv/file").stdout == "kept\n"
    assert host.netplug("rm", "-f", "web").returncode == 0
    removed = host.netplug("image", "rm", "tiny:1.0")
    assert removed.returncode == 0
    assert [line.split(":")[0] for line in removed.stdout.splitlines()] == ["Untagged", "Deleted"]
    assert host.netplug("image", "ls", "-q").stdout.count("\n") == 1
    assert list((host.state_directory / "images").iterdir()) == []
    assert host.netplug("image", "rm", "tiny:1.0").stderr.strip().endswith("No such image: tiny:1.0")


def test_an_image_comes_by_stdin_and_packed(host: Host, plain: Path):
    for kind in ("gz", "xz"):
        argv = [sys.executable, "-m", "netplug.cli", "image", "import", "-", f"tiny:{kind}"]
        done = subprocess.run(argv, input=tarball(f"w:{kind}"), capture_output=True, env=host.environment, timeout=60)
        assert done.returncode == 0, done.stderr
        assert host.netplug("run", "--rm", f"tiny:{kind}", "cat", "/etc/group").stdout == "root:x:0:\nweb:x:71:\n"
    packed = plain.with_suffix(".tar.gz")
    packed.write_bytes(tarball("w:gz"))
    assert host.netplug("image", "import", str(packed), "tiny").returncode == 0
    host.restart()
    assert host.netplug("run", "--rm", "tiny", "id", "-un").stdout == "root\n"
    argv = [sys.executable, "-m", "netplug.cli", "image", "import", "-", "broken"]
    broken = subprocess.run(argv, input=b"no tarball at all" * 100, capture_output=True, env=host.environment, timeout=60, text=False)
    assert broken.returncode == 1
    assert len(broken.stderr.splitlines()) == 1
    missing = host.netplug("image", "import", "/nowhere.tar", "tiny")
    assert (missing.returncode, missing.stderr) == (1, "open /nowhere.tar: no such file or directory\n")


def test_what_a_process_is_given(host: Host, plain: Path):
    assert host.netplug("image", "import", str(plain), "tiny").returncode == 0
    folder = host.directory / "shared"
    folder.mkdir()
    (folder / "given").write_text("from outside\n")
    script = "pwd; id -u; id -g; echo $WORD; cat /data/given /ro/given; echo inside > /data/made; echo no > /ro/made || echo refused"
    options = ("-v", f"{folder}:/data", "-v", f"{folder}:/ro:ro", "-w", "/srv/deep/er", "-u", "web", "-e", "WORD=a b", "-e", "NETPLUG_HOST")
    folder.chmod(0o777)
    done = host.netplug("run", "--rm", *options, "tiny", "sh", "-c", f"{script}; echo $NETPLUG_HOST")
    lines = ["/srv/deep/er", "70", "71", "a b", "from outside", "from outside", "refused", f"unix://{host.socket}"]
    assert done.stdout.splitlines() == lines, done.stderr
    assert (folder / "made").read_text() == "inside\n"
    assert (folder / "made").stat().st_uid == 70
    unknown = host.netplug("run", "--rm", "-u", "nobody-here", "tiny", "true")
    assert unknown.returncode == 125
    assert "unable to find user nobody-here: no matching entries in passwd file" in unknown.stderr
    assert host.netplug("run", "--rm", "--entrypoint", "echo", "tiny", "a", "b").stdout == "a b\n"


# What the commands print


def test_the_journal_says_what_happened_and_for_whom(host: Host):
    def journal() -> list[dict[str, Any]]:
        return [json.loads(line) for line in host.netplug("journal", "-n", "1000", "--format", "json").stdout.splitlines()]

    before = len(journal())  # the host may have had other tests
    network(host, "demo")
    run(host, "web", "--network", "demo", "-p", "8080:80", *IDLE)
    assert host.netplug("network", "disconnect", "demo", "web").returncode == 0
    said = host.netplug("journal").stdout
    assert "demo" in said
    assert "web" in said
    assert "ip link add" in said
    entries = journal()[before:]
    found = [(entry["action"], entry["subject"]) for entry in entries if "web" in entry["subject"] or "demo" in entry["subject"]]
    assert found == [
        ("network create", "demo"),
        ("sandbox create", "web"),
        ("network connect", "demo/web"),
        ("network disconnect", "demo/web"),
    ]
    assert all(entry["by"].startswith(f"API uid {os.getuid()} pid ") for entry in entries[-4:])
    assert "8080" in " ".join(entries[-1]["commands"])
    assert len(host.netplug("journal", "-q", "-n", "2").stdout.splitlines()) == 2


def test_ipam_show(host: Host):
    network(host, "--subnet", "10.204.0.0/29", "--gateway", "10.204.0.6", "--aux-address", "printer=10.204.0.5", "demo")
    run(host, "web", "--network", "demo", *IDLE)
    lines = [line.split() for line in host.netplug("ipam", "show", "demo").stdout.splitlines()]
    assert ["10.204.0.1", "container", "web"] in [line[:3] for line in lines]
    assert ["10.204.0.6", "gateway"] in [line[:2] for line in lines]
    assert ["10.204.0.5", "reserved", "printer"] in [line[:3] for line in lines]
    assert any("1 of 4 in use (25 %)" in " ".join(line) for line in lines)
    everything = host.netplug("ipam", "show").stdout
    assert [line for line in everything.splitlines() if line in ("bridge", "demo")] == ["bridge", "demo"]
    for number in range(3):
        run(host, f"more{number}", "--network", "demo", *IDLE)
    full = host.netplug("run", "-d", "--network", "demo", *IDLE)
    assert full.returncode == 125
    assert "no available IPv4 addresses on this network's address pools: demo" in full.stderr


def test_networks_without_containers_are_pruned(host: Host):
    before = host.state()
    for name in ("used", "free", "kept"):
        network(host, *(("--label", "keep=yes") if name == "kept" else ()), name)
    run(host, "web", "--network", "used", *IDLE)
    done = host.netplug("network", "prune", "-f", "--filter", "label!=keep")
    assert done.stdout == "Deleted Networks:\nfree\n\n"
    done = host.netplug("network", "prune", stdin="n\n")
    assert "Are you sure you want to continue? [y/N]" in done.stdout
    assert "kept" in host.netplug("network", "ls", "--format", "{{.Name}}").stdout.split()
    assert "kept" in host.netplug("network", "prune", stdin="y\n").stdout
    assert host.netplug("network", "prune", "-f").stdout == ""
    assert host.netplug("network", "rm", "used").returncode == 1
    assert host.netplug("rm", "-f", "web").returncode == 0
    assert "used" in host.netplug("network", "prune", "-f").stdout
    assert list(differences(host.state(), before)) == []


def test_ports_are_shown_where_they_lead(host: Host, lan: Lan):
    network(host, "demo")
    serve(host, "web", "--network", "demo", "-p", "8080:80")
    assert host.netplug("ps", "--format", "{{.Ports}}").stdout == "0.0.0.0:8080->80/tcp\n"
    assert host.netplug("network", "disconnect", "demo", "web").returncode == 0
    assert host.netplug("ps", "--format", "{{.Ports}}").stdout == "80/tcp\n"
    assert host.netplug("port", "web").stdout == ""
    serve(host, "heir", "--network", "demo", "-p", "8080:80")
    assert host.netplug("port", "heir").stdout == "80/tcp -> 0.0.0.0:8080\n"
    before = host.state()
    refused = host.netplug("network", "connect", "demo", "web")
    assert refused.returncode == 1
    assert "Bind for 0.0.0.0:8080 failed: port is already allocated (by container heir)" in refused.stderr
    assert host.state() == before
    assert host.netplug("rm", "-f", "heir").returncode == 0
    assert host.netplug("network", "connect", "demo", "web").returncode == 0
    assert host.netplug("port", "web").stdout == "80/tcp -> 0.0.0.0:8080\n"
    assert ask(lan.outside.path, host.address, 8080) == OUTSIDE_ADDRESS


def test_formats_filters_and_quiet(host: Host):
    network(host, "--label", "team=red", "--internal", "demo")
    run(host, "web", "--network", "demo", "--label", "team=red", "--network-alias", "www", *IDLE)
    run(host, "short", "-l", "team=blue", "-p", "8080:80", "host", "true")
    assert host.netplug("wait", "short").stdout == "0\n"
    identity = host.container("web")["Id"]

    def said(*arguments: str) -> list[str]:
        done = host.netplug(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    assert said("ps", "-q") == [identity[:12]]
    assert said("ps", "-q", "--no-trunc") == [identity]
    assert said("ps", "-a", "--format", "{{.Names}}") == ["short", "web"]
    assert said("ps", "-a", "--filter", "label=team=blue", "--format", "{{.Names}}: {{.State}}") == ["short: exited"]
    assert said("ps", "-a", "-f", "status=exited", "-f", "name=sho", "--format", "table {{.Names}}\t{{.Networks}}") == [
        "NAMES     NETWORKS",
        "short     bridge",
    ]
    assert said("ps", "-f", "network=demo", "--format", "{{json .Names}}") == ['"web"']
    assert json.loads(said("ps", "--format", "json")[0])["Names"] == "web"
    template = "{{range $name, $one := .NetworkSettings.Networks}}{{$name}} {{$one.IPAddress}}{{end}}"
    assert said("inspect", "-f", template, "web") == [f"demo {host.container_address('web', 'demo')}"]
    assert said("network", "ls", "--filter", "driver=bridge", "--format", "{{.Name}} {{.Internal}}") == ["bridge false", "demo true"]
    assert said("network", "ls", "-q", "--filter", "label=team=red") == [host.api("GET", "/networks/demo")["Id"][:12]]
    assert said("network", "ls", "--filter", "type=custom", "--format", "{{.Name}}") == ["demo"]
    assert said("network", "inspect", "-f", "{{len .Containers}} {{(index .IPAM.Config 0).Subnet}}", "demo") == [
        f"1 {subnet(host, 'demo')}"
    ]
    wrong = host.netplug("ps", "--filter", "colour=red")
    assert (wrong.returncode, wrong.stderr) == (1, "Error response from daemon: invalid filter 'colour'\n")
    broken = host.netplug("ps", "--format", "{{.Nothing")
    assert broken.returncode != 0
    assert len(broken.stderr.splitlines()) == 1


def test_completion(host: Host):
    network(host, "demo")
    for shell, mark in (("bash", "complete"), ("zsh", "compdef"), ("fish", "complete")):
        done = host.netplug("completion", shell)
        assert done.returncode == 0, done.stderr
        assert mark in done.stdout
    environment = dict(host.environment, _NETPLUG_COMPLETE="bash_complete", COMP_WORDS="netplug network rm de", COMP_CWORD="3")
    done = command(sys.executable, "-m", "netplug.cli", env=environment, check=False)
    assert "demo" in done.stdout


def test_who_may_not_open_the_socket_is_told_so(host: Host):
    host.directory.chmod(0o755)
    host.run_directory.chmod(0o755)
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-m", "netplug.cli", "ps"]
    done = command(*argv, env=host.environment, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "permission denied" in done.stderr.lower()
