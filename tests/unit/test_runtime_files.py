"""What a container is told about its network: hosts, resolv.conf and links by Docker's rules."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from netplug.errors import InvalidArgument
from netplug.model import DnsConfig, PortBinding
from netplug.runtime import hosts, links, resolvconf
from netplug.runtime.model import Container, ContainerConfig
from netplug.runtime.resolvconf import ResolvConf


def container(name: str, **options: object) -> Container:
    config = ContainerConfig(image="host", **options)  # type: ignore[arg-type]
    return Container(id=name * 8, name=name, created="", config=config)


class TestHosts:
    def test_lines_come_in_order(self):
        text = hosts.hosts([("192.0.2.7", "db")], hosts.own_lines(["172.18.0.2/16"], "web", ""))
        assert text.splitlines()[0] == "127.0.0.1\tlocalhost"
        assert text.splitlines()[6:] == ["192.0.2.7\tdb", "172.18.0.2\tweb"]

    def test_without_ipv6_no_line_has_an_ipv6_address(self):
        own = hosts.own_lines(["172.18.0.2/16", "fd00::2/64"], "web", "")
        text = hosts.hosts([("192.0.2.7", "db"), ("2001:db8::7", "db")], own, ipv6=False)
        assert text == "127.0.0.1\tlocalhost\n192.0.2.7\tdb\n172.18.0.2\tweb\n"

    def test_an_address_of_each_ip_version_has_a_line_of_its_own(self):
        assert hosts.own_lines(["172.18.0.2/16", "fd00::2/64", "", "fd01::2/64"], "web", "") == [
            ("172.18.0.2", "web"),
            ("fd00::2", "web"),
            ("fd01::2", "web"),
        ]

    @pytest.mark.parametrize(
        ("hostname", "domain", "names"),
        [("web", "", "web"), ("web", "example.org", "web.example.org web"), ("web.example.org", "", "web.example.org web")],
    )
    def test_the_full_name_and_its_first_part(self, hostname: str, domain: str, names: str):
        assert hosts.own_lines(["10.0.0.2/24"], hostname, domain) == [("10.0.0.2", names)]

    def test_extra_hosts(self):
        entries = ("a:192.0.2.1", "six:2001:db8::1", "up:host-gateway")
        lines = hosts.extra_lines(entries, lambda: ["172.17.0.1", "fd00:5::1"])
        assert lines == [("192.0.2.1", "a"), ("2001:db8::1", "six"), ("172.17.0.1", "up"), ("fd00:5::1", "up")]
        for bad in ("a", "a:", ":192.0.2.1"):
            with pytest.raises(InvalidArgument, match=r"^bad format for add-host"):
                hosts.extra_lines((bad,), list)

    def test_the_user_s_lines_stay_when_ours_change(self, tmp_path: Path):
        managed = hosts.ManagedFile(tmp_path / "hosts")
        managed.write("1\told\n2\tboth\n")
        inode = managed.path.stat().st_ino
        with managed.path.open("a") as file:
            file.write("9\tmine\n")
        managed.refresh("2\tboth\n3\tnew\n")
        assert managed.path.read_text() == "2\tboth\n3\tnew\n9\tmine\n"
        managed.refresh("4\tlast\n")
        assert managed.path.read_text() == "4\tlast\n9\tmine\n"
        assert managed.path.stat().st_ino == inode

    def test_a_full_disk_is_told(self, tmp_path: Path):
        """The kernel writes what there is room for, and says so; here the room is the process's own limit."""
        managed = hosts.ManagedFile(tmp_path / "hosts")
        managed.write("1\told\n")
        limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            with pytest.raises(OSError, match="No space left on device"):
                managed.refresh("2\tnew\n" * 1000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))


class TestResolvConf:
    HOST = ResolvConf(("127.0.0.53", "192.0.2.1", "::1", "2001:db8::1"), ("example.net",), ("edns0", "ndots:3"))

    def test_text_and_back(self):
        text = "# comment\nsearch a.example b.example\nnameserver 192.0.2.1 # first\nnameserver 192.0.2.2\noptions ndots:2 rotate\n;x\n"
        parsed = ResolvConf.from_text(text)
        assert parsed == ResolvConf(("192.0.2.1", "192.0.2.2"), ("a.example", "b.example"), ("ndots:2", "rotate"))
        assert ResolvConf.from_text(parsed.to_text()) == parsed

    def test_the_last_search_line_holds(self):
        assert ResolvConf.from_text("domain a.example\nsearch b.example c.example\n").search == ("b.example", "c.example")

    def test_the_host_s_loopback_servers_cannot_be_reached(self):
        assert resolvconf.container(self.HOST, DnsConfig(), resolver=False, ipv6=True).servers == ("192.0.2.1", "2001:db8::1")
        assert resolvconf.container(self.HOST, DnsConfig(), resolver=False, ipv6=False).servers == ("192.0.2.1",)

    @pytest.mark.parametrize("servers", [(), ("127.0.0.1",), ("127.0.0.1", "::1")])
    def test_with_no_server_left_the_public_ones_are_asked(self, servers: tuple[str, ...]):
        public = ("8.8.8.8", "8.8.4.4")
        assert resolvconf.container(ResolvConf(servers), DnsConfig(), resolver=False, ipv6=False).servers == public
        public6 = ("2001:4860:4860::8888", "2001:4860:4860::8844")
        assert resolvconf.container(ResolvConf(servers), DnsConfig(), resolver=False, ipv6=True).servers == public + public6

    def test_ipv6_servers_of_the_host_are_no_use_without_ipv6(self):
        six = ResolvConf(("2001:db8::1",))
        assert resolvconf.container(six, DnsConfig(), resolver=False, ipv6=False).servers == ("8.8.8.8", "8.8.4.4")
        assert resolvconf.container(six, DnsConfig(), resolver=True, ipv6=False).servers == ("127.0.0.11",)

    def test_what_the_user_says_replaces_part_by_part(self):
        dns = DnsConfig(servers=("127.0.0.1",), search=("mine.example",))
        assert resolvconf.container(self.HOST, dns, resolver=False, ipv6=True) == ResolvConf(
            ("127.0.0.1",), ("mine.example",), ("edns0", "ndots:3")
        )

    def test_no_search_at_all(self):
        assert resolvconf.container(self.HOST, DnsConfig(search=(".",)), resolver=False, ipv6=True).to_text().startswith("nameserver")

    @pytest.mark.parametrize(
        ("chosen", "options"),
        [((), ("edns0", "ndots:0")), (("rotate",), ("rotate", "ndots:0")), (("ndots:5",), ("ndots:5",))],
    )
    def test_the_resolver_sets_ndots_unless_the_user_does(self, chosen: tuple[str, ...], options: tuple[str, ...]):
        answer = resolvconf.container(self.HOST, DnsConfig(options=chosen), resolver=True, ipv6=True)
        assert answer == ResolvConf(("127.0.0.11",), ("example.net",), options)

    def test_the_daemon_s_settings_are_for_those_who_say_nothing(self):
        merged = resolvconf.defaults(DnsConfig(search=("mine",)), ("192.0.2.9",), ("theirs",), ("rotate",))
        assert merged == DnsConfig(servers=("192.0.2.9",), search=("mine",), options=("rotate",))

    def test_a_file_that_was_changed_in_the_container_is_left_alone(self, tmp_path: Path):
        managed = resolvconf.ManagedFile(tmp_path / "resolv.conf")
        managed.write("one")
        assert managed.refresh("two")
        assert managed.path.read_text() == "two"
        managed.path.write_text("mine")
        assert not managed.refresh("three")
        assert managed.path.read_text() == "mine"

    def test_a_death_between_the_two_writes_does_not_lose_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        managed = resolvconf.ManagedFile(tmp_path / "resolv.conf")
        managed.write("one")
        with monkeypatch.context() as patched:
            patched.setattr(resolvconf, "write_in_place", lambda path, text: None)
            managed.write("two")
        assert managed.path.read_text() == "one"
        assert managed.refresh("three")
        assert managed.path.read_text() == "three"


class TestLinks:
    @pytest.mark.parametrize(
        ("text", "parts"), [("db", ("db", "db")), ("db:data", ("db", "data")), ("/db:/web/data", ("db", "data")), ("db:", ("db", "db"))]
    )
    def test_forms(self, text: str, parts: tuple[str, str]):
        assert links.parse(text) == parts

    @pytest.mark.parametrize("text", ["", ":x", "a:b:c"])
    def test_bad_forms(self, text: str):
        with pytest.raises(InvalidArgument, match=r"^bad format for links"):
            links.parse(text)

    def test_variables(self):
        ports = (PortBinding(protocol="tcp", port=8080, host_port=80),)
        other = container("db", exposed=("5432/tcp", "8080/tcp"), ports=ports, environment=("A=1", "PATH=/bin", "HOME=/"))
        assert links.environment(container("web"), "my-db", other, "172.17.0.3") == [
            "MY_DB_NAME=/web/my-db",
            "MY_DB_PORT=tcp://172.17.0.3:5432",
            "MY_DB_PORT_5432_TCP=tcp://172.17.0.3:5432",
            "MY_DB_PORT_5432_TCP_ADDR=172.17.0.3",
            "MY_DB_PORT_5432_TCP_PORT=5432",
            "MY_DB_PORT_5432_TCP_PROTO=tcp",
            "MY_DB_PORT_8080_TCP=tcp://172.17.0.3:8080",
            "MY_DB_PORT_8080_TCP_ADDR=172.17.0.3",
            "MY_DB_PORT_8080_TCP_PORT=8080",
            "MY_DB_PORT_8080_TCP_PROTO=tcp",
            "MY_DB_ENV_A=1",
        ]

    def test_ports_in_a_row_have_a_start_and_an_end(self):
        """Three at least, as with Docker."""
        exposed = ("90/tcp", "91/tcp", "82/tcp", "81/udp", "80/tcp", "81/tcp", "7/udp")
        variables = links.environment(container("web"), "db", container("db", exposed=exposed), "172.17.0.3")
        assert [variable for variable in variables if "_START=" in variable or "_END=" in variable] == [
            "DB_PORT_80_TCP_START=tcp://172.17.0.3:80",
            "DB_PORT_80_TCP_PORT_START=80",
            "DB_PORT_80_TCP_END=tcp://172.17.0.3:82",
            "DB_PORT_80_TCP_PORT_END=82",
        ]

    def test_an_ipv6_address_in_a_url_has_brackets(self):
        variables = links.environment(container("web"), "db", container("db", exposed=("80/tcp",)), "fd00::3")
        assert variables == [
            "DB_NAME=/web/db",
            "DB_PORT=tcp://[fd00::3]:80",
            "DB_PORT_80_TCP=tcp://[fd00::3]:80",
            "DB_PORT_80_TCP_ADDR=fd00::3",
            "DB_PORT_80_TCP_PORT=80",
            "DB_PORT_80_TCP_PROTO=tcp",
        ]

    def test_hosts_line(self):
        assert links.line("alias", container("db"), "abc", "10.0.0.3") == ("10.0.0.3", "alias abc db")
        assert links.line("db", container("db"), "abc", "10.0.0.3") == ("10.0.0.3", "db abc")
