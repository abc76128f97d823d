"""What others could have made, or could replace, is neither used nor emptied."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.bpf.bpffs import end, lock
from agent.folders import NotOurs, check_own, check_place, open_own, own_folder, remove

OTHER = 4711
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """Somebody's folder, with a file in it."""
    folder = tmp_path / "precious"
    folder.mkdir(mode=0o755)
    (folder / "file").write_text("data")
    return folder


def test_removal_follows_no_link(tmp_path: Path, precious: Path) -> None:
    """Nothing is removed behind a link: not where the folder is one, nor below it."""
    (tmp_path / "link").symlink_to(precious)
    with pytest.raises(NotOurs, match="is a link"):
        remove(tmp_path / "link")
    folder = own(tmp_path / "pins")
    (folder / "inside").mkdir()
    (folder / "inside" / "link").symlink_to(precious)
    remove(folder)
    assert not folder.exists()
    assert (precious / "file").exists()


def own(path: Path) -> Path:
    os.close(own_folder(path))
    return path


def test_only_the_owner_writes(tmp_path: Path) -> None:
    """A folder that others can write is refused, with its mode; one that we make nobody else can enter."""
    folder = own(tmp_path / "gadget")
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o770)
    for use in (open_own, own_folder, check_own, remove, lock, end):
        with pytest.raises(NotOurs, match="mode 770"):
            use(folder)
    assert folder.exists()


def test_folders_of_older_agents(tmp_path: Path) -> None:
    """A folder that an agent with umask 0177 made, which nobody can enter without privileges, is mended."""
    folder = tmp_path / "gadget"
    folder.mkdir(mode=0o600)
    own(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_way_there(tmp_path: Path) -> None:
    """A folder on the way that all may write is refused, unless it is sticky as /tmp is; links on the way are followed."""
    way = tmp_path / "way"
    (way / "state").mkdir(parents=True)
    (tmp_path / "short").symlink_to(way)
    way.chmod(0o777)
    for path in (way / "state", tmp_path / "short" / "state"):
        with pytest.raises(NotOurs, match="others may write to"):
            check_own(path)
    way.chmod(0o1777)
    check_own(way / "state")
    check_own(tmp_path / "short" / "state")
    check_own(way / "not" / "there")


def test_links_in_a_circle(tmp_path: Path) -> None:
    """Links that go round end."""
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(NotOurs, match="too many links"):
        check_place(tmp_path / "a" / "x")


@as_root
def test_of_another_user(tmp_path: Path, precious: Path) -> None:
    """In a place like /tmp a folder or a link that another user made is not taken for ours."""
    place = tmp_path / "tmp"
    place.mkdir()
    place.chmod(0o1777)
    theirs, link = place / "gadget", place / "link"
    theirs.mkdir()
    os.chown(theirs, OTHER, OTHER)
    link.symlink_to(precious)
    os.lchown(link, OTHER, OTHER)
    with pytest.raises(NotOurs, match="of user 4711"):
        own_folder(theirs)
    for path in (theirs / "traceloop", link / "traceloop"):
        with pytest.raises(NotOurs, match="of user 4711, who could replace it"):
            check_own(path)


@as_root
def test_inside_ours(tmp_path: Path) -> None:
    """A folder of another user inside of ours is no reason to remove what is in it."""
    folder = own(tmp_path / "gadget")
    theirs = folder / "x"
    theirs.mkdir()
    (theirs / "file").write_text("")
    os.chown(theirs, OTHER, OTHER)
    with pytest.raises(NotOurs):
        remove(folder)
    assert (theirs / "file").exists()
