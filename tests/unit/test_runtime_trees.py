"""Folders with hostile content are read inside their root, and deleted without following anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from netplug.runtime import mounts, tarball
from netplug.runtime.trees import exists_inside, read_inside, remove_tree


def test_links_lead_nowhere_outside_of_the_root(tmp_path: Path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "etc").mkdir(parents=True)
    outside.write_text("secret")
    (root / "absolute").symlink_to(outside)
    (root / "climbing").symlink_to("../../../../../../.." + str(outside))
    (root / "etc" / "real").write_text("fine")
    (root / "good").symlink_to("/etc/real")
    assert read_inside(root, "/absolute") == ""
    assert read_inside(root, "/climbing") == ""
    assert read_inside(root, "/../../outside") == ""
    assert read_inside(root, "/good") == "fine"
    assert exists_inside(root, "/good")
    assert not exists_inside(root, "/absolute")


def test_only_regular_files_are_read(tmp_path: Path):
    """A FIFO would block for ever."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    assert read_inside(tmp_path, "/fifo") == ""
    assert read_inside(tmp_path, "/folder") == ""


def test_a_tree_goes_and_what_its_links_lead_to_stays(tmp_path: Path):
    doomed, kept = tmp_path / "doomed", tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("")
    for name in ("a/b/c", "a/b/d", "e", "a/.hidden"):
        (doomed / name).mkdir(parents=True)
        (doomed / name / "file").write_text("")
    (doomed / "a" / "link").symlink_to(kept)
    (doomed / "a" / "b" / "up").symlink_to("..")
    remove_tree(doomed)
    assert not doomed.exists()
    assert (kept / "file").exists()
    remove_tree(doomed)


def test_no_depth_is_too_deep(tmp_path: Path):
    """Deeper than a path can be long, and than Python recurses."""
    doomed = tmp_path / "doomed"
    doomed.mkdir()
    here = os.open(doomed, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deeper", dir_fd=here)
        below = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    remove_tree(doomed)
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_not_taken_for_the_folder(tmp_path: Path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to("kept")
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        remove_tree(tmp_path / "link")
    assert (tmp_path / "kept").exists()


def test_mount_points_are_found_whatever_their_names():
    assert "/proc" in mounts.at_or_below(Path("/proc"))
    assert mounts._unescape(rb"/a\040b\134c") == rb"/a b\c"
    assert mounts._octal(b"/a b") == rb"/a\040b"
    assert mounts._escape(Path("/a,b:c")) == r"/a\,b\:c"


def test_sizes_count_a_hard_link_once(tmp_path: Path):
    (tmp_path / "one").write_bytes(b"x" * 1000)
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    (tmp_path / "link").symlink_to("one")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "three").write_bytes(b"x" * 10)
    assert tarball.size(tmp_path) == 1010
