from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gadget.errors import GadgetError, Unreachable, UsageError
from kubectl_gadget.cluster.credentials import get_credentials
from kubectl_gadget.cluster.kubeconfig import Flags, read_context


def write(path: Path, **changes: Any) -> Path:
    config = {
        "current-context": "home",
        "clusters": [
            {"name": "home", "cluster": {"server": "https://home:6443", "certificate-authority": "ca.crt"}},
            {"name": "away", "cluster": {"server": "https://away"}},
        ],
        "users": [
            {"name": "me", "user": {"token": "secret"}},
            {"name": "you", "user": {"username": "you", "password": "pass"}},
        ],
        "contexts": [
            {"name": "home", "context": {"cluster": "home", "user": "me", "namespace": "shop"}},
            {"name": "away", "context": {"cluster": "away", "user": "you"}},
        ],
    }
    path.write_text(yaml.safe_dump(config | changes))
    return path


def headers(flags: Flags) -> dict[str, str]:
    return dict(get_credentials(read_context(flags)).headers)


def test_context(tmp_path: Path) -> None:
    """The current context counts unless I name another; its namespace is the default one."""
    path = str(write(tmp_path / "config"))
    home, away = read_context(Flags(path)), read_context(Flags(path, context="away"))
    assert (home.cluster["server"], home.namespace) == ("https://home:6443", "shop")
    assert (away.cluster["server"], away.namespace) == ("https://away", "default")
    assert home.cluster["certificate-authority"] == str(tmp_path / "ca.crt")


def test_flags_win(tmp_path: Path) -> None:
    """The connection flags of kubectl take the place of what the kubeconfig says."""
    path = str(write(tmp_path / "config"))
    mixed = read_context(Flags(path, cluster="away", user="me", server="https://other", tls_server_name="name"))
    assert mixed.cluster == {"server": "https://other", "tls-server-name": "name"}
    assert headers(Flags(path, user="you")) == {"Authorization": "Basic eW91OnBhc3M="}
    assert headers(Flags(path, token="mine"))["Authorization"] == "Bearer mine"


def test_impersonation(tmp_path: Path) -> None:
    """--as, --as-uid and every --as-group reach the API server."""
    flags = Flags(str(write(tmp_path / "config")), as_="alice", as_uid="7", as_group=("a", "b"))
    sent = get_credentials(read_context(flags)).headers
    assert sent[1:] == (
        ("Impersonate-User", "alice"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b"),
    )


def test_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several files in KUBECONFIG the first that says something counts; one that is missing is passed over."""
    first = tmp_path / "first"
    first.write_text(yaml.safe_dump({"clusters": [{"name": "home", "cluster": {"server": "https://first"}}]}))
    second = write(tmp_path / "second")
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(map(str, (tmp_path / "missing", first, second))))
    read_context.cache_clear()
    context = read_context(Flags())
    assert (context.cluster["server"], context.namespace) == ("https://first", "shop")


@pytest.mark.parametrize(
    ("flags", "error", "said"),
    [
        ({"context": "hom"}, UsageError, "no context 'hom' in the kubeconfig: it has away, home"),
        ({"cluster": "x"}, UsageError, "no cluster 'x' in the kubeconfig: it has away, home"),
        ({"user": "x"}, UsageError, "no user 'x' in the kubeconfig: it has me, you"),
        ({"kubeconfig": "/nowhere"}, UsageError, "/nowhere: no such file"),
    ],
)
def test_mistakes(tmp_path: Path, flags: dict[str, str], error: type[GadgetError], said: str) -> None:
    """A name that is not there is answered with those that are."""
    with pytest.raises(error) as raised:
        read_context(Flags(**{"kubeconfig": str(write(tmp_path / "config")), **flags}))
    assert said in str(raised.value)


def test_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a kubeconfig I am told where one was looked for."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    read_context.cache_clear()
    with pytest.raises(Unreachable) as raised:
        read_context(Flags())
    assert str(tmp_path / "none") in str(raised.value)


def test_not_yaml(tmp_path: Path) -> None:
    """A broken kubeconfig is named."""
    (tmp_path / "config").write_text("a: [")
    with pytest.raises(GadgetError, match="config"):
        read_context(Flags(str(tmp_path / "config")))


def plugin_user(script: str) -> list[dict[str, Any]]:
    login = {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": ["-c", script]}
    return [
        {"name": "me", "user": {"exec": {**login, "provideClusterInfo": True, "env": [{"name": "A", "value": "b"}]}}}
    ]


def test_plugin(tmp_path: Path) -> None:
    """A log-in plugin is told which cluster it is for, and what it prints logs me in until it expires."""
    (tmp_path / "ca.crt").write_text("authority")
    script = """
import json, os
told = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
cluster = told["spec"]["cluster"]
token = "-".join([os.environ["A"], cluster["server"], cluster["certificate-authority-data"]])
status = {"token": token, "expirationTimestamp": "2020-01-01T00:00:00Z"}
print(json.dumps({"apiVersion": told["apiVersion"], "kind": "ExecCredential", "status": status}))
"""
    context = read_context(Flags(str(write(tmp_path / "config", users=plugin_user(script)))))
    credentials = get_credentials(context)
    authority = base64.b64encode(b"authority").decode()
    assert credentials.headers == (("Authorization", f"Bearer b-https://home:6443-{authority}"),)
    assert credentials.expired


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("raise SystemExit(3)", "failed with exit code 3"),
        ("print('hello')", "printed no ExecCredential"),
        (f"print({json.dumps(json.dumps({'kind': 'ExecCredential'}))})", "printed no ExecCredential"),
    ],
)
def test_plugin_that_fails(tmp_path: Path, script: str, said: str) -> None:
    """A log-in plugin that does not log me in is named with what it did."""
    (tmp_path / "ca.crt").write_text("authority")
    context = read_context(Flags(str(write(tmp_path / "config", users=plugin_user(script)))))
    with pytest.raises(GadgetError, match=said) as raised:
        get_credentials(context)
    assert sys.executable in str(raised.value)
