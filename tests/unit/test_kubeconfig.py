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
from gadget.kube.credentials import get_credentials
from gadget.kube.kubeconfig import ClusterFlags, read_context


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


def headers(flags: ClusterFlags) -> dict[str, str]:
    return dict(get_credentials(read_context(flags)).headers)


def test_context(tmp_path: Path) -> None:
    """The current context counts unless I name another; its namespace is the default one."""
    path = str(write(tmp_path / "config"))
    home, away = read_context(ClusterFlags(path)), read_context(ClusterFlags(path, context="away"))
    assert (home.cluster["server"], home.namespace) == ("https://home:6443", "shop")
    assert (away.cluster["server"], away.namespace) == ("https://away", "default")
    assert home.cluster["certificate-authority"] == str(tmp_path / "ca.crt")


def test_flags_win(tmp_path: Path) -> None:
    """The connection flags of kubectl take the place of what the kubeconfig says."""
    path = str(write(tmp_path / "config"))
    mixed = read_context(ClusterFlags(path, cluster="away", user="me", server="https://other", tls_server_name="name"))
    assert mixed.cluster == {"server": "https://other", "tls-server-name": "name"}
    assert headers(ClusterFlags(path, user="you")) == {"Authorization": "Basic eW91OnBhc3M="}
    assert headers(ClusterFlags(path, token="mine"))["Authorization"] == "Bearer mine"


def test_impersonation(tmp_path: Path) -> None:
    """--as, --as-uid and every --as-group reach the API server."""
    flags = ClusterFlags(str(write(tmp_path / "config")), as_="alice", as_uid="7", as_group=("a", "b"))
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
    context = read_context(ClusterFlags())
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
        read_context(ClusterFlags(**{"kubeconfig": str(write(tmp_path / "config")), **flags}))
    assert said in str(raised.value)


def test_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a kubeconfig I am told where one was looked for."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    read_context.cache_clear()
    with pytest.raises(Unreachable) as raised:
        read_context(ClusterFlags())
    assert str(tmp_path / "none") in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"clusters:\n- name: home\n\tcluster: {}\n", ", line 3: "),
        (b"a: [", ", line 1: "),
        (b"a: b\nc: d: e\n", ", line 2: mapping values are not allowed"),
        (b"a: b\nc: \xff\n", ", line 2: a character that YAML may not have"),
        (b"users:\n- name: me\n  user: {token: 123}\n", ": it is YAML, but not a kubeconfig (number 1 of its users): token is no text: quote it"),
        (b"clusters:\n- name: a\n- 7\n", ": it is YAML, but not a kubeconfig (number 2 of its clusters)"),
        (b"contexts: 7\n", ": it is YAML, but not a kubeconfig (contexts)"),
        (b"just text\n", ": it is YAML, but not a kubeconfig"),
    ],
)  # fmt: skip
def test_no_kubeconfig(tmp_path: Path, text: bytes, said: str) -> None:
    """A kubeconfig that is none is named, with the line or the entry that is wrong."""
    path = tmp_path / "config"
    path.write_bytes(text)
    with pytest.raises(GadgetError) as raised:
        read_context(ClusterFlags(str(path)))
    assert str(raised.value).startswith(f"kubeconfig {path}{said}")  # the words are of one of two parsers


@pytest.mark.parametrize(
    ("changes", "flags", "said"),
    [
        ({"current-context": ""}, {}, "has no current-context: choose one of away, home with --context"),
        ({"current-context": "gone"}, {}, "no context 'gone' in the kubeconfig: it has away, home"),
        ({"contexts": [{"name": "home", "context": {"user": "me"}}]}, {}, "context 'home' of the kubeconfig names no cluster"),
        ({"clusters": [{"name": "home", "cluster": {"proxy-url": "x"}}]}, {}, "cluster 'home' of the kubeconfig has no server"),
        ({"clusters": []}, {}, "no cluster 'home' in the kubeconfig: it has none"),
        ({"contexts": [], "current-context": ""}, {}, "has no contexts"),
    ],
)  # fmt: skip
def test_no_server(tmp_path: Path, changes: dict[str, Any], flags: dict[str, str], said: str) -> None:
    """When a kubeconfig leads to no server I am told what it lacks, and not that it is not there."""
    path = write(tmp_path / "config", **changes)
    with pytest.raises(GadgetError) as raised:
        read_context(ClusterFlags(str(path), **flags))
    assert said in str(raised.value) and "there is no kubeconfig" not in str(raised.value)


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
    context = read_context(ClusterFlags(str(write(tmp_path / "config", users=plugin_user(script)))))
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
    context = read_context(ClusterFlags(str(write(tmp_path / "config", users=plugin_user(script)))))
    with pytest.raises(GadgetError, match=said) as raised:
        get_credentials(context)
    assert sys.executable in str(raised.value)
