"""Who can reach an agent, by where it listens."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from agent import listen
from agent.folders import NotOurs
from agent.listen import check_reach, close_to_others, in_pod_network, place, unix_socket
from gadget.errors import GadgetError, UsageError

KUBELET = "903 880 8:1 /var/lib/kubelet/pods/2b7f4e2c-3a55-4d5e-a43c-0e7b7c1f6a10/etc-hosts /etc/hosts rw - ext4 /dev/sda1 rw\n"
STATIC = KUBELET.replace("2b7f4e2c-3a55-4d5e-a43c-0e7b7c1f6a10", "2b7f4e2c3a554d5ea43c0e7b7c1f6a10")


@pytest.mark.parametrize(
    ("mounts", "first", "pod"),
    [
        (KUBELET, False, True),
        (STATIC, False, True),
        (KUBELET, True, False),  # hostNetwork: its loopback is the machine's
        ("903 880 8:1 /docker/containers/ab/hosts /etc/hosts rw - ext4 /dev/sda1 rw\n", False, False),
        ("25 1 8:1 / / rw - ext4 /dev/sda1 rw\n", False, False),
    ],
)
def test_in_a_pod(tmp_path: Path, mounts: str, first: bool, pod: bool, monkeypatch) -> None:
    """An agent is in a pod if the kubelet made it, with a network of its own; what the environment says is nothing."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("POD_UID", "2b7f4e2c-3a55-4d5e-a43c-0e7b7c1f6a10")
    (tmp_path / "mountinfo").write_text(mounts)
    network = tmp_path / "netdev_max_backlog"
    if first:
        network.write_text("")
    assert in_pod_network(tmp_path / "mountinfo", network) is pod


@pytest.mark.parametrize("address", ["unix:/run/agent.sock", "/run/agent.sock", "localhost", ":7070", "::1:port"])
def test_no_address(address: str) -> None:
    """An address that is mistyped is told as what it is, with both forms."""
    with pytest.raises(UsageError, match=r"neither unix:///PATH nor HOST:PORT"):
        check_reach(address, local_users=False, anywhere=True)


def test_who_may_be_meant(monkeypatch) -> None:
    """A port is refused unless its reach was asked for by name; in a pod loopback is nobody else's."""
    monkeypatch.setattr(listen, "in_pod_network", lambda: False)
    for address in ("127.0.0.1:7070", "[::1]:7070", "localhost:7070"):
        with pytest.raises(UsageError, match=r"every user of this machine .*--listen-local-users"):
            check_reach(address, local_users=False, anywhere=False)
        check_reach(address, local_users=True, anywhere=False)
    for flags in ((False, False), (True, False)):
        with pytest.raises(UsageError, match="not a loopback address"):
            check_reach("0.0.0.0:7070", *flags)
    check_reach("0.0.0.0:7070", local_users=False, anywhere=True)
    monkeypatch.setattr(listen, "in_pod_network", lambda: True)
    check_reach("127.0.0.1:7070", local_users=False, anywhere=False)
    with pytest.raises(UsageError):
        check_reach("0.0.0.0:7070", local_users=False, anywhere=False)


def test_no_option_is_named_that_there_is_not(monkeypatch) -> None:
    """Where no option says that a wide reach is meant, none is named: a socket is, which root alone can open."""
    monkeypatch.setattr(listen, "in_pod_network", lambda: False)
    assert not [address for address in ("127.0.0.1:7070", "0.0.0.0:7070") if "--listen-" in _refusal(address)]
    assert "Listen on unix:///PATH" in _refusal("127.0.0.1:7070")


def _refusal(address: str) -> str:
    with pytest.raises(UsageError) as refused, place(address):
        pass
    return str(refused.value)


def test_socket(tmp_path: Path, monkeypatch) -> None:
    """The agent's own socket is this user's alone, as is its folder, and gone in the end."""
    place = tmp_path / "gadget" / "agent.sock"
    monkeypatch.setattr(listen, "DEFAULT", place)
    with unix_socket(place), socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        close_to_others(f"unix://{place}")
        assert [path.stat().st_mode & 0o777 for path in (place.parent, place)] == [0o700, 0o600]
        server.listen()
        with pytest.raises(GadgetError, match=r"listens on .* already"), unix_socket(place):
            pass
    assert not place.exists()


def test_socket_where_others_write(tmp_path: Path) -> None:
    """A socket where others could put theirs in its place is refused."""
    tmp_path.chmod(0o777)
    with pytest.raises(NotOurs, match="others may write"), unix_socket(tmp_path / "agent.sock"):
        pass
    assert os.listdir(tmp_path) == []
