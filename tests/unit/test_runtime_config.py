"""What a container is asked to be, and what the OCI runtime is told: no kernel in between."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from netplug.errors import InvalidArgument
from netplug.runtime import bundle, capabilities, changes, configure, names, signals, users
from netplug.runtime.model import ContainerConfig, Image, Mount
from netplug.runtime.oci import RuntimeFailed, clean, exit_code
from netplug.runtime.paths import Paths
from netplug.runtime.users import User

BLANK = Image(id="")


def spec(**options: object) -> bundle.Spec:
    fields: dict[str, object] = {
        "root": Path("/root"),
        "arguments": ("sh",),
        "environment": (),
        "user": User(),
        "hostname": "web",
        "cgroup": "/c/x",
        "namespace": "/run/n/x",
        "own_network": True,
        **options,
    }
    return bundle.Spec(**fields)  # type: ignore[arg-type]


class TestBundle:
    def test_namespaces_and_sysctls_of_an_own_network(self):
        linux = bundle.config(spec())["linux"]
        assert {"type": "network", "path": "/run/n/x"} in linux["namespaces"]
        assert {"type": "pid"} in linux["namespaces"]
        assert linux["sysctl"] == {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
        assert linux["cgroupsPath"] == "/c/x"

    def test_the_daemon_s_network_is_inherited_and_not_changed(self):
        linux = bundle.config(spec(namespace=None, own_network=False, sysctls={"kernel.msgmax": "9"}, domainname="example"))["linux"]
        assert [entry for entry in linux["namespaces"] if entry["type"] == "network"] == []
        assert linux["sysctl"] == {"kernel.msgmax": "9", "kernel.domainname": "example"}

    def test_the_host_s_proc_is_masked_unless_privileged(self):
        usual, privileged = bundle.config(spec())["linux"], bundle.config(spec(privileged=True))["linux"]
        assert "/proc/kcore" in usual["maskedPaths"]
        assert "/proc/sys" in usual["readonlyPaths"]
        assert usual["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
        assert (privileged["maskedPaths"], privileged["readonlyPaths"]) == ([], [])

    def test_mounts_lie_in_order_and_the_user_s_replace_ours(self):
        binds = [("/deep", "/a/b/c", False), ("/top", "/a", True), ("/mine", "/dev/shm", False)]
        mounts = bundle.config(spec(binds=binds, tmpfs=[("/tmp", "mode=1777")]))["mounts"]
        places = [mount["destination"] for mount in mounts]
        assert places.index("/tmp") < places.index("/a") < places.index("/a/b/c")
        assert places.count("/dev/shm") == 1
        assert mounts[places.index("/a")] == {"destination": "/a", "type": "bind", "source": "/top", "options": ["rbind", "rprivate", "ro"]}

    def test_the_process(self):
        process = bundle.process(spec(user=User(33, 44, (5,), "/w"), terminal=True, working_directory="/srv"))
        assert process["user"] == {"uid": 33, "gid": 44, "additionalGids": [5]}
        assert (process["terminal"], process["cwd"], process["noNewPrivileges"]) == (True, "/srv", False)
        json.dumps(process)

    def test_environments_are_merged_by_name(self):
        assert bundle.environment(["A=1", "B=2"], ["B=3", "C="], ["A"]) == ["B=3", "C="]


class TestCapabilities:
    def test_usual(self):
        chosen = capabilities.chosen((), (), privileged=False)
        assert len(chosen) == 14
        assert "CAP_NET_RAW" in chosen
        assert "CAP_NET_ADMIN" not in chosen

    def test_added_and_dropped(self):
        assert capabilities.chosen(("net_admin",), ("ALL",), privileged=False) == ["CAP_NET_ADMIN"]
        assert "CAP_NET_RAW" not in capabilities.chosen((), ("CAP_NET_RAW",), privileged=False)

    def test_never_more_than_the_daemon_has(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(capabilities, "_available", lambda: ("CAP_KILL",))
        assert capabilities.chosen(("ALL",), (), privileged=False) == ["CAP_KILL"]

    def test_unknown(self):
        with pytest.raises(InvalidArgument, match=r'^invalid CapDrop: unknown capability: "CAP_FLY"$'):
            capabilities.check((), ("fly",))


class TestUsers:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nbroken\nweb:x:33:44::/home/web:/bin/sh\n+nis\n")
        (tmp_path / "etc/group").write_text("root:x:0:\nmail:x:8:root,web\nwww:x:44:\nadm:x:4:web\n")
        return tmp_path

    @pytest.mark.parametrize(
        ("text", "user"),
        [
            ("", User(0, 0, (0, 8), "/root")),
            ("web", User(33, 44, (44, 8, 4), "/home/web")),
            ("33", User(33, 44, (44, 8, 4), "/home/web")),
            ("web:mail", User(33, 8, (8,), "/home/web")),
            ("1000", User(1000, 0, (0,), "/")),
            ("1000:1001", User(1000, 1001, (1001,), "/")),
        ],
    )
    def test_forms(self, root: Path, text: str, user: User):
        assert users.lookup(root, text) == user

    def test_unknown_names(self, root: Path):
        with pytest.raises(InvalidArgument, match=r"^unable to find user nobody: no matching entries in passwd file$"):
            users.lookup(root, "nobody")
        with pytest.raises(InvalidArgument, match=r"^unable to find group none: no matching entries in group file$"):
            users.lookup(root, "web:none")

    def test_a_root_without_files_has_numbers(self, tmp_path: Path):
        assert users.lookup(tmp_path, "5") == User(5, 0, (0,), "/")


class TestConfigure:
    IMAGE = Image(id="x", command=("run",), entrypoint=("tini", "--"), environment=("A=1", "B=2"), user="web", exposed=("80/tcp",))

    def test_the_image_fills_what_is_left_open(self):
        config = configure.merged(ContainerConfig(image="x", environment=("B=3",), exposed=("81/tcp",)), self.IMAGE)
        assert (config.entrypoint, config.command, config.user) == (("tini", "--"), ("run",), "web")
        assert config.environment == ("A=1", "B=3")
        assert config.exposed == ("80/tcp", "81/tcp")

    def test_an_entrypoint_replaces_the_image_s_command_too(self):
        config = configure.merged(ContainerConfig(image="x", entrypoint=("sh",)), self.IMAGE)
        assert (config.entrypoint, config.command) == (("sh",), ())
        config = configure.merged(ContainerConfig(image="x", entrypoint=("",), command=("sh",)), self.IMAGE)
        assert (config.entrypoint, config.command) == ((), ("sh",))

    @pytest.mark.parametrize(
        ("fields", "sentence"),
        [
            ({"command": ()}, "^No command specified$"),
            ({"working_directory": "srv"}, "^the working directory 'srv' is invalid, it needs to be an absolute path$"),
            ({"hostname": "a b"}, "^invalid hostname format: a b$"),
            ({"stop_signal": "SIGNOPE"}, "^Invalid signal: SIGNOPE$"),
            ({"capabilities_add": ("FLY",)}, "invalid CapAdd: unknown capability"),
            ({"network_mode": "container:x", "hostname": "y"}, "^conflicting options: hostname and the network mode$"),
            ({"network_mode": "host", "links": ("db",)}, "^conflicting options: host type networking can't be used with links$"),
        ],
    )
    def test_what_can_never_work(self, fields: dict[str, object], sentence: str):
        config = msgspec.structs.replace(ContainerConfig(image="x", command=("sh",)), **fields)
        with pytest.raises(InvalidArgument, match=sentence):
            configure.check(config)

    @pytest.mark.parametrize(("source", "target"), [("data", "/x"), ("/x", "data"), ("/x", "/"), ("/x", "/a/..")])
    def test_mounts_need_whole_paths(self, source: str, target: str):
        with pytest.raises(InvalidArgument, match=r"absolute|destination can't be '/'"):
            configure.merged(ContainerConfig(image="x", mounts=(Mount(source=source, target=target),)), BLANK)


class TestChanges:
    def test_forms(self):
        lines = ["cmd echo hi", 'ENTRYPOINT ["a", "b"]', "ENV A=1 B='x y'", "ENV OLD old form", "EXPOSE 80 53/udp", "USER u", "WORKDIR /w"]
        assert changes.apply_changes(BLANK, lines) == Image(
            id="",
            command=("/bin/sh", "-c", "echo hi"),
            entrypoint=("a", "b"),
            environment=("A=1", "B=x y", "OLD=old form"),
            exposed=("80/tcp", "53/udp"),
            user="u",
            working_directory="/w",
        )

    @pytest.mark.parametrize("line", ["CMD", "RUN rm -rf /", "ENV A", "ENV =x", "ENV A='x"])
    def test_bad_lines(self, line: str):
        with pytest.raises(InvalidArgument):
            changes.apply_changes(BLANK, [line])


class TestSmallThings:
    @pytest.mark.parametrize(
        ("text", "number"), [("SIGTERM", 15), ("kill", 9), ("winch", 28), ("9", 9), ("RTMIN", 34), ("SIGRTMIN+3", 37), ("rtmax-1", 63)]
    )
    def test_signals(self, text: str, number: int):
        assert signals.parse(text) == number

    @pytest.mark.parametrize("text", ["", "0", "65", "NOPE", "RTMIN+99", "RTMIN-1", "RTMINx", "-9", "SIG"])
    def test_bad_signals(self, text: str):
        with pytest.raises(InvalidArgument, match=f"^Invalid signal: {text.replace('+', '[+]')}$"):
            signals.parse(text)

    def test_generated_names_are_names_and_free(self):
        taken: set[str] = set()
        for _ in range(500):
            name = names.generate(taken)
            assert names.check(name) == name
            assert name not in taken
            taken.add(name)

    def test_names(self):
        assert names.check("/web.1-x_y") == "web.1-x_y"
        for bad in ("", "a", "-ab", "a b", "a/b", "é12"):
            with pytest.raises(InvalidArgument, match=r"only \[a-zA-Z0-9\]\[a-zA-Z0-9_.-\] are allowed$"):
                names.check(bad)

    @pytest.mark.parametrize(
        ("message", "code"),
        [
            ('exec: "x": executable file not found in $PATH', 127),
            ('exec: "/x": stat /x: no such file or directory', 127),
            ('exec: "/etc": permission denied', 126),
            ("is a directory", 126),
            ("cannot allocate memory", 128),
        ],
    )
    def test_failures_have_docker_s_codes(self, message: str, code: int):
        assert exit_code(message) == code
        failure = RuntimeFailed("create", message)
        assert str(failure) == f"OCI runtime create failed: {message}: unknown"
        assert failure.http_status == (500 if code == 128 else 400)

    def test_the_last_line_is_the_message(self):
        assert clean("warning\n\nthe reason\n") == "the reason"
        assert clean("") == "it gave no reason"

    def test_crun_s_words_become_runc_s(self):
        said = clean("executable file `x` not found in $PATH: No such file or directory")
        assert said == 'exec: "x": executable file not found in $PATH: no such file or directory'
        assert exit_code(said) == 127
        assert exit_code(clean("open executable: Permission denied")) == 126

    def test_daemons_have_cgroups_of_their_own(self, tmp_path: Path):
        first, second = (Paths(tmp_path / name, tmp_path).cgroup("x") for name in "ab")
        assert first != second
        assert first.endswith("-x")
        assert os.path.dirname(first) == "/"
