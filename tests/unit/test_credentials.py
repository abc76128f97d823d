"""As whom a kubeconfig logs in: what counts of several is what counts for kubectl.

The right values are those of kubectl 1.32.4 with the same files, at a TLS server that noted headers and certificates;
client-go 0.31.4 has them in tools/clientcmd/client_config.go (getUserIdentificationPartialConfig), tools/clientcmd/
validation.go (validateAuthInfo), transport/round_trippers.go (HTTPWrappersForConfig, NewBearerAuthWithRefreshRoundTripper)
and plugin/pkg/client/auth/exec/exec.go (UpdateTransportConfig).
"""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gadget.errors import GadgetError
from gadget.kube.api import make_tls
from gadget.kube.credentials import Credentials, get_credentials
from gadget.kube.kubeconfig import ClusterFlags, read_context
from tests.tunnels import make_certificate

VERSION = "client.authentication.k8s.io/v1"
EXEC = {"exec": {"apiVersion": VERSION, "command": "./login", "interactiveMode": "Never"}}
TOKEN = {"token": "config"}
FILE, MISSING, EMPTY = {"tokenFile": "token"}, {"tokenFile": "none"}, {"tokenFile": "empty"}
CERTIFICATE = {"client-certificate": "crt", "client-key": "key"}
BASIC = {"username": "u", "password": "p"}
AS = {"as": "alice", "as-groups": ["g"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the files that kubeconfigs name are."""
    make_certificate(tmp_path)
    (tmp_path / "token").write_text("file\n")
    (tmp_path / "empty").write_text("\n")
    answer = {"apiVersion": VERSION, "kind": "ExecCredential", "status": {"token": "plugin"}}
    login = tmp_path / "login"
    login.write_text(f"#!/bin/sh\ncd {tmp_path} && echo $KUBERNETES_EXEC_INFO > ran && echo '{json.dumps(answer)}'\n")
    login.chmod(0o755)
    return tmp_path


def log_in(folder: Path, user: dict[str, Any], server: str = "https://x", **flags: Any) -> Credentials:
    config = {"clusters": [{"name": "c", "cluster": {"server": server}}], "users": [{"name": "me", "user": user}],
              "contexts": [{"name": "c", "context": {"cluster": "c", "user": "me"}}], "current-context": "c"}  # fmt: skip
    (folder / "config").write_text(yaml.safe_dump(config))
    read_context.cache_clear()
    for name in ("client_certificate", "client_key"):
        if name in flags:
            flags[name] = str(folder / flags[name])
    return get_credentials(read_context(ClusterFlags(str(folder / "config"), **flags)))


def shown(folder: Path, found: Credentials) -> set[str]:
    """What an API server sees of them, and whether the plugin ran."""
    words = {"certificate"} if found.certificate else set()
    if (folder / "ran").exists():
        words.add("ran")
    for name, value in found.headers:
        kind, _, secret = value.partition(" ")
        if name == "Authorization":
            value = secret if kind == "Bearer" else base64.b64decode(secret).decode()
        words.add(value)
    return words


@pytest.mark.parametrize(
    ("user", "flags", "sees"),
    [
        (EXEC, {}, {"plugin", "ran"}),
        (EXEC | TOKEN, {}, {"config"}),
        (EXEC | FILE, {}, {"file"}),
        (EXEC | CERTIFICATE, {}, {"certificate"}),
        (EXEC | BASIC, {}, {"u:p"}),
        (EXEC | {"client-key": "key"}, {}, {"plugin", "ran"}),
        (TOKEN | FILE, {}, {"file"}),
        (TOKEN | MISSING, {}, {"config"}),
        (TOKEN | EMPTY, {}, {"config"}),
        (TOKEN | CERTIFICATE, {}, {"config", "certificate"}),
        (BASIC | CERTIFICATE, {}, {"u:p", "certificate"}),
        (TOKEN | AS, {"token": "flag"}, {"flag", "alice", "g"}),
        (EXEC, {"token": "flag"}, {"flag"}),
        (FILE, {"token": "flag"}, {"file"}),
        (CERTIFICATE, {"token": "flag"}, {"flag", "certificate"}),
        (EXEC, {"client_certificate": "crt", "client_key": "key"}, {"certificate"}),
        (AS, {"username": "fu", "password": "fp"}, {"fu:fp", "alice", "g"}),
        (BASIC | AS, {"username": "fu"}, {"fu:p", "alice", "g"}),
        (BASIC, {"password": "fp"}, {"u:fp"}),
        (TOKEN | AS, {"as_": "bob"}, {"config", "bob", "g"}),
        (TOKEN | AS, {"as_group": ("h",)}, {"config", "alice", "h"}),
    ],
)  # fmt: skip
def test_precedence(folder: Path, user: dict[str, Any], flags: dict[str, Any], sees: set[str]) -> None:
    """The API server takes me for whom kubectl with the same file and flags is, with no more rights."""
    assert shown(folder, log_in(folder, user, **flags)) == sees


@pytest.mark.parametrize(
    ("user", "flags", "said"),
    [
        (TOKEN | BASIC, {}, "a token and a username"),
        (FILE | BASIC, {}, "a token and a username"),
        (BASIC, {"token": "flag"}, "a token and a username"),
        (TOKEN, {"username": "fu"}, "a token and a username"),
        (EXEC | {"client-certificate": "crt"}, {}, "no client-key"),
        (MISSING, {}, "none: No such file"),
        (EMPTY, {}, "empty: there is no token in it"),
        (TOKEN, {"as_group": ("h",)}, "need --as"),
        (TOKEN, {"as_uid": "7"}, "need --as"),
        (TOKEN | {"as-groups": ["g"]}, {}, "need --as"),
        (TOKEN | {"as-user-extra": {"k": ["v"]}}, {}, "need --as"),
    ],
)  # fmt: skip
def test_refused_as_by_kubectl(folder: Path, user: dict[str, Any], flags: dict[str, Any], said: str) -> None:
    """What kubectl refuses for what it could mean is refused, and the reason told."""
    with pytest.raises(GadgetError, match=said):
        log_in(folder, user, **flags)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("user", [EXEC, EXEC | TOKEN, FILE, BASIC, CERTIFICATE])
def test_plain_http(folder: Path, user: dict[str, Any]) -> None:
    """No secret goes over plain HTTP, and no plugin is run for it; as whom I act is no secret."""
    assert shown(folder, log_in(folder, user | AS, "http://x")) == {"alice", "g"}


def test_what_a_plugin_is_told(folder: Path) -> None:
    """A plugin gets the cluster's settings that are meant for plugins, and none of another kind."""
    settings = [
        {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "me"}},
        {"name": "other", "extension": 1},
    ]
    cluster = {"server": "https://x", "extensions": settings}
    user = {"exec": {**EXEC["exec"], "provideClusterInfo": True}}
    config = {"clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "me", "user": user}],
              "contexts": [{"name": "c", "context": {"cluster": "c", "user": "me"}}], "current-context": "c"}  # fmt: skip
    (folder / "config").write_text(yaml.safe_dump(config))
    get_credentials(read_context(ClusterFlags(str(folder / "config"))))
    told = json.loads((folder / "ran").read_text())["spec"]["cluster"]
    assert told == {"server": "https://x", "config": {"audience": "me"}}


@pytest.mark.parametrize("comment", ["Autorit\xe4t".encode(), "Autorit\xe4t".encode("latin-1"), b"", b"\0"])
def test_comments_in_authorities(folder: Path, comment: bytes) -> None:
    """A bundle of authorities may have comments in any encoding, as those of distributions have, and one that is broken."""
    pem = (folder / "crt").read_bytes()
    broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    (folder / "bundle").write_bytes(b"# %b\n" % comment + broken + pem + comment)
    tls = make_tls(
        read_context(ClusterFlags("/dev/null", server="https://x", certificate_authority=str(folder / "bundle"))),
        Credentials(()),
    )
    assert [found["subject"] for found in tls.get_ca_certs()] == [((("commonName", "test"),),)]


@pytest.mark.parametrize(
    "bundle", [b"nothing", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"\xff"]
)
def test_no_authority(folder: Path, bundle: bytes) -> None:
    """A bundle without one good certificate is refused in one line."""
    (folder / "bundle").write_bytes(bundle)
    context = read_context(ClusterFlags("/dev/null", server="https://x", certificate_authority=str(folder / "bundle")))
    with pytest.raises(GadgetError, match="the certificate authority is no good"):
        make_tls(context, Credentials(()))


def test_key_with_a_password(folder: Path) -> None:
    """A key that needs a password is refused, as kubectl does, and nobody is asked for it."""
    lock = ["openssl", "ec", "-aes256", "-passout", "pass:secret", "-in", "key", "-out", "locked"]
    subprocess.run(lock, cwd=folder, check=True, capture_output=True)
    found = log_in(folder, {"client-certificate": "crt", "client-key": "locked"})
    with pytest.raises(GadgetError, match="the client certificate or key is no good"):
        make_tls(read_context(ClusterFlags(str(folder / "config"))), found)


def test_flags_of_tls(folder: Path) -> None:
    """--certificate-authority makes sure of the server though the kubeconfig does not, and --server has a name of its own."""
    cluster = {"server": "https://x", "insecure-skip-tls-verify": True, "tls-server-name": "x"}
    config = {"clusters": [{"name": "c", "cluster": cluster}], "contexts": [{"name": "c", "context": {"cluster": "c"}}]}
    (folder / "config").write_text(yaml.safe_dump({**config, "current-context": "c"}))

    def tls(**flags: Any) -> ssl.SSLContext:
        return make_tls(read_context(ClusterFlags(str(folder / "config"), **flags)), Credentials(()))

    assert tls().verify_mode == ssl.CERT_NONE
    assert tls(certificate_authority=str(folder / "crt")).verify_mode == ssl.CERT_REQUIRED
    assert (tls().name, tls(server="https://y").name) == ("x", "")  # type: ignore[attr-defined]
