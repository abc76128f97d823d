"""`hubble serve --tls`, as deploy --hubble runs it, and Hubble's own clients with keys and without."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kubectl_gadget.cluster.certificates import of_both_sides
from kubectl_gadget.cluster.hubble import server_names
from tests.conftest import Cli, run_cli
from tests.hubble.conftest import Hubble, rows
from tests.hubble.test_relay import relaying
from tests.unit.hubble.served import Served, serving
from tests.unit.observe.flows import FLOWS

NAME, *OTHER_NAMES = server_names("gadget")


def keys(folder: Path) -> Path:
    """Folders server and client, as the Secrets have them."""
    for side, data in zip(("server", "client"), of_both_sides("--hubble", server_names("gadget")), strict=True):
        (folder / side).mkdir(parents=True)
        for name, text in data.items():
            (folder / side / name).write_bytes(base64.b64decode(text))
    return folder


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """Keys of both sides."""
    return keys(tmp_path / "keys")


@pytest.fixture
def secured(tmp_path: Path, there: Path, start_cli: Callable[..., Cli]) -> Iterator[Served]:
    """A server that asks for keys."""
    options = ("--tls", str(there / "server"), "--tls-name", NAME, "--status", "127.0.0.1:0")
    with serving(tmp_path, start_cli, ("node-a",), *options) as found:
        yield found


def having(folder: Path, name: str = NAME) -> list[str]:
    """The options of a client that has keys."""
    at = folder / "client"
    return ["--tls", "--tls-ca-cert-files", str(at / "ca.crt"), "--tls-client-cert-file", str(at / "tls.crt"),
            "--tls-client-key-file", str(at / "tls.key"), "--tls-server-name", name]  # fmt: skip


def test_who_has_keys(secured: Served, there: Path, hubble: Hubble) -> None:
    """With the Secret of clients `hubble observe` works, under each name of the server and what Hubble's page expects."""
    for name in (NAME, "hubble-relay", "ui.hubble-relay.cilium.io"):
        asked = ("observe", "-o", "jsonpb", "--server", secured.address, *having(there, name))
        assert len(rows(hubble(*asked))) == len(FLOWS)


def test_who_has_none(secured: Served, there: Path, hubble: Hubble, tmp_path: Path) -> None:
    """Without keys, with another authority's, or without TLS a client sees nothing."""
    where = ("observe", "--server", secured.address, "--timeout", "3s")
    others = having(keys(tmp_path / "others"))
    ours = having(there)
    for options in ([], ours[:3] + ours[-2:], others[:1] + ours[1:3] + others[3:]):
        assert hubble(*where, *options, fails=True)
    wrong = [*ours[:-1], "elsewhere.example"]
    assert hubble(*where, *wrong, fails=True)


def test_relay(secured: Served, there: Path, binaries: Path, hubble: Hubble, tmp_path: Path) -> None:
    """hubble-relay is told our name, and reads us with the keys of clients."""
    at = there / "client"
    options = ["--tls-hubble-server-ca-files", str(at / "ca.crt"), "--tls-hubble-client-cert-file", str(at / "tls.crt"),
               "--tls-hubble-client-key-file", str(at / "tls.key")]  # fmt: skip
    with relaying(binaries, secured.address, 1, tmp_path / "log", *options) as address:
        found = rows(hubble("observe", "-o", "jsonpb", "--server", address))
        assert len([row for row in found if "flow" in row]) == len(FLOWS)


def test_wrong_keys(there: Path, tmp_path: Path) -> None:
    """Keys that are not there, or make no sense, end it at once with what is wrong."""
    where = ("hubble", "serve", "--agent", f"unix://{tmp_path}/none", "--listen", "127.0.0.1:0", "--tls")
    done = run_cli(*where, str(tmp_path))
    assert (done.returncode, done.stderr) == (1, f"error: --tls {tmp_path}/ca.crt: No such file or directory\n")
    (there / "server/tls.key").write_text("no key")
    done = run_cli(*where, str(there / "server"))
    assert (done.returncode, done.stderr) == (
        1,
        f"error: --tls {there}/server: no certificate with its key, or no authority\n",
    )
