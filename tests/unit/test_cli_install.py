"""`netplug install`: exactly the files that are needed, and none but ours are removed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from netplug.cli.install import install_command

UNITS = "etc/systemd/system"
DOCKER = [
    "etc/docker/plugins/netplug.json",
    f"{UNITS}/docker.service.d/netplug.conf",
    f"{UNITS}/netplug-docker.socket",
    f"{UNITS}/netplug.service.d/docker.conf",
]


def run(root: Path, *arguments: str) -> str:
    done = CliRunner().invoke(install_command, [*arguments, "--root", str(root)], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.output


def there(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize(("what", "files"), [("docker", DOCKER), ("systemd", [f"{UNITS}/netplug.service"])])
def test_there_and_back(tmp_path: Path, what: str, files: list[str]) -> None:
    (tmp_path / UNITS).mkdir(parents=True)
    said = run(tmp_path, what)
    assert there(tmp_path) == files
    assert all(f"wrote {tmp_path / name}" in said for name in files)
    assert "is there already" in run(tmp_path, what)
    would = run(tmp_path, what, "--uninstall", "--dry-run")
    assert there(tmp_path) == files
    removed = run(tmp_path, what, "--uninstall")
    assert [line.replace("would remove", "removed") for line in would.splitlines()] == removed.splitlines()[:-1]
    assert there(tmp_path) == []
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["etc", "etc/systemd", UNITS], "directories that were made for them"
    assert "is not there" in run(tmp_path, what, "--uninstall")


def test_directories_of_others_stay(tmp_path: Path) -> None:
    """Those that were there, empty or not, and those that somebody uses by now."""
    for folder in ("etc/docker/plugins", UNITS, f"{UNITS}/netplug.service.d"):
        (tmp_path / folder).mkdir(parents=True)
    run(tmp_path, "docker")
    (tmp_path / UNITS / "docker.service.d" / "mine.conf").write_text("[Service]\n")
    said = run(tmp_path, "docker", "--uninstall")
    assert there(tmp_path) == [f"{UNITS}/docker.service.d/mine.conf"]
    assert (tmp_path / "etc/docker/plugins").is_dir()
    assert (tmp_path / UNITS / "netplug.service.d").is_dir()
    assert said.count("removed") == len(DOCKER)


def test_directories_that_were_made_are_known_after_another_version_has_written_its_files(tmp_path: Path) -> None:
    run(tmp_path, "docker")
    unit = tmp_path / UNITS / "netplug.service.d/docker.conf"
    assert f"removes it (made with it: {UNITS}/netplug.service.d)." in unit.read_text()
    unit.write_text(unit.read_text() + "# of another version\n")
    assert f"wrote {unit}" in run(tmp_path, "docker")
    run(tmp_path, "docker", "--uninstall")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_shows_what_would_be_written(tmp_path: Path) -> None:
    said = run(tmp_path, "docker", "--dry-run")
    assert "Environment=NETPLUG_DOCKER=--docker-plugin=/run/docker/plugins/netplug.sock" in said
    assert there(tmp_path) == []


def test_files_of_others_stay(tmp_path: Path) -> None:
    own = tmp_path / UNITS / "docker.service.d"
    own.mkdir(parents=True)
    (own / "mine.conf").write_text("[Service]\n")
    run(tmp_path, "docker")
    run(tmp_path, "docker", "--uninstall")
    assert there(tmp_path) == [f"{UNITS}/docker.service.d/mine.conf"]

    (own / "netplug.conf").write_text("[Unit]\n")
    for arguments in (("docker",), ("docker", "--uninstall")):
        with pytest.raises(Exception, match="was not written by this command"):
            run(tmp_path, *arguments)
    assert there(tmp_path) == [f"{UNITS}/docker.service.d/mine.conf", f"{UNITS}/docker.service.d/netplug.conf"]


def test_the_service_runs_the_command_that_is_here(tmp_path: Path) -> None:
    run(tmp_path, "systemd")
    unit = (tmp_path / UNITS / "netplug.service").read_text()
    (start,) = (line for line in unit.splitlines() if line.startswith("ExecStart="))
    program = start.removeprefix("ExecStart=").split()[0]
    assert program.startswith("/")
    assert start.endswith("netplug daemon $NETPLUG_DOCKER $NETPLUG_FLAGS")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze, which would read the units, is not here")
def test_units_are_ones_that_systemd_takes(tmp_path: Path) -> None:
    run(tmp_path, "systemd")
    service = tmp_path / UNITS / "netplug.service"
    assert verified(service) == ""
    run(tmp_path, "docker")
    assert verified(service, tmp_path / UNITS / "netplug-docker.socket") == ""

    service.write_text(service.read_text().replace("[Service]", "[Service]\nKillMood=process"))
    assert "KillMood" in verified(service)


def verified(*units: Path) -> str:
    """What systemd has against these; drop-ins beside them are read too."""
    return subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, timeout=60).stderr


def test_what_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="docker or systemd is needed"):
        run(tmp_path, "podman")
    with pytest.raises(Exception, match="there is no directory"):
        run(tmp_path / "nowhere", "docker")
