"""Finds API server and user from kubeconfig files and connection flags, as kubectl does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gadget.errors import GadgetError, NoCluster, UsageError
from gadget.values import dataclass

#: Entries whose relative paths are below the folder of the file that has them.
_PATHS = {
    "clusters": ("certificate-authority",),
    "users": ("client-certificate", "client-key", "tokenFile"),
}
#: The keys whose values must be text.
_TEXTS = {
    "clusters": ("server", "certificate-authority", "certificate-authority-data", "tls-server-name", "proxy-url"),
    "users": (
        *("client-certificate", "client-certificate-data", "client-key", "client-key-data"),
        *("tokenFile", "token", "username", "password", "as", "as-uid"),
    ),
    "contexts": ("cluster", "user", "namespace"),
}
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True)
class ClusterFlags:
    """kubectl's connection flags; what is empty is as the kubeconfig says. request_timeout in seconds, 0 for none."""

    kubeconfig: str = ""
    context: str = ""
    cluster: str = ""
    user: str = ""
    server: str = ""
    token: str = ""
    username: str = ""
    password: str = ""
    certificate_authority: str = ""
    client_certificate: str = ""
    client_key: str = ""
    tls_server_name: str = ""
    insecure_skip_tls_verify: bool = False
    as_: str = ""
    as_uid: str = ""
    as_group: tuple[str, ...] = ()
    as_user_extra: tuple[str, ...] = ()
    request_timeout: float = 0.0


@dataclass(frozen=True)
class Context:
    """A chosen context with the flags applied: cluster and user are entries as kubeconfig files have them."""

    name: str
    namespace: str
    cluster: dict[str, Any] = field(hash=False)
    user: dict[str, Any] = field(hash=False)
    flags: ClusterFlags = ClusterFlags()


@cache
def read_context(flags: ClusterFlags) -> Context:
    """The context that flags choose. UsageError for a name that is not there, Unreachable if there is no cluster."""
    merged = _merge(flags)
    name = flags.context or merged["current-context"]
    if name and name not in merged["contexts"]:
        raise UsageError(f"no context {name!r} in the kubeconfig: it has {_names(merged['contexts'])}")
    context = merged["contexts"].get(name) or {}
    cluster = dict(_entry(merged["clusters"], flags.cluster or context.get("cluster", ""), "cluster"))
    user = dict(_entry(merged["users"], flags.user or context.get("user", ""), "user"))
    namespace = context.get("namespace") or "default"
    if not cluster and not flags.server and (_SERVICE_ACCOUNT / "token").exists():
        cluster, user = _own_service_account()
        namespace = (_SERVICE_ACCOUNT / "namespace").read_text().strip()
    _apply(flags, cluster, user)
    if not cluster.get("server"):
        raise _no_server(flags, merged, name, context)
    cluster["server"] = _server_url(cluster, user)
    return Context(name, namespace, cluster, user, flags)


def _no_server(flags: ClusterFlags, merged: dict[str, Any], name: str, context: dict[str, Any]) -> GadgetError:
    """Why there is no API server to talk to."""
    files = " or ".join(map(str, _files(flags)))
    if cluster := flags.cluster or context.get("cluster"):
        return UsageError(f"cluster {cluster!r} of the kubeconfig has no server")
    if name:
        return UsageError(f"context {name!r} of the kubeconfig names no cluster")
    if merged["contexts"]:
        return UsageError(
            f"the kubeconfig ({files}) has no current-context: choose one of {_names(merged['contexts'])} "
            "with --context, or for good by `kubectl config use-context NAME`"
        )
    there = any(path.exists() for path in _files(flags))
    why = f"the kubeconfig at {files} has no contexts" if there else f"there is no kubeconfig at {files}"
    return NoCluster(f"no cluster to talk to: {why}")


def _files(flags: ClusterFlags) -> list[Path]:
    if flags.kubeconfig:
        return [Path(flags.kubeconfig)]
    listed = [Path(name) for name in os.environ.get("KUBECONFIG", "").split(os.pathsep) if name]
    return listed or [Path.home() / ".kube/config"]


def _merge(flags: ClusterFlags) -> dict[str, Any]:
    """All files merged. The first entry with a name counts."""
    merged: dict[str, Any] = {"clusters": {}, "users": {}, "contexts": {}, "current-context": ""}
    for path in _files(flags):
        for key, name, entry in list(_entries(path, required=bool(flags.kubeconfig))):
            if key == "current-context":
                merged[key] = merged[key] or name
            else:
                merged[key].setdefault(name, entry)
    return merged


def _entries(path: Path, *, required: bool) -> Iterator[tuple[str, str, Any]]:
    """What a file has, by section and name. GadgetError that says where if it is no kubeconfig."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        if required:
            raise UsageError(f"--kubeconfig {path}: no such file") from None
        return
    except OSError as error:
        raise GadgetError(f"kubeconfig {path}: {error.strerror}") from None
    place = ""
    try:
        data = _yaml(path, text)
        yield "current-context", _text(data, "current-context"), None
        for key in _TEXTS:
            place = f" ({key})"
            for number, item in enumerate(data.get(key) or (), 1):
                place = f" (number {number} of its {key})"
                name = _text(item, "name")
                yield key, name, _entry_of(key, item, path.parent)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        why = f": {error}" if isinstance(error, _NotText) else ""
        raise GadgetError(f"kubeconfig {path}: it is YAML, but not a kubeconfig{place}{why}") from None


def _yaml(path: Path, text: bytes) -> Any:
    import yaml  # 40 ms that --local and --agent do without

    try:
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        last = text.count(b"\n")  # a parser that misses something at the end may name the line behind it
        line = f", line {min(mark.line, last) + 1}" if mark else ""
        raise GadgetError(f"kubeconfig {path}{line}: {error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        number = text[: error.position].count(b"\n") + 1
        raise GadgetError(f"kubeconfig {path}, line {number}: a character that YAML may not have") from None


def _entry_of(key: str, item: dict[str, Any], folder: Path) -> dict[str, Any]:
    """An entry of a kubeconfig in folder, checked, with paths that hold from anywhere."""
    entry = dict(item.get(key.removesuffix("s")) or {})
    for name in _TEXTS[key]:
        _text(entry, name)
    for name in _PATHS.get(key, ()):
        if entry.get(name):
            entry[name] = str(folder / entry[name])
    _texts(entry.get("as-groups"))
    for name, values in (entry.get("as-user-extra") or {}).items():
        _texts([name, *values])
    for extension in entry.get("extensions") or ():
        _texts([extension["name"]])
    if plugin := entry.get("exec"):
        entry["exec"] = _plugin(plugin, folder)
    return entry


def _plugin(plugin: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A log-in plugin of a kubeconfig in folder."""
    command = _text(plugin, "command")
    beside = os.sep in command  # else it is looked for in PATH
    _texts(plugin.get("args"))
    for item in plugin.get("env") or ():
        _texts([item["name"], item["value"]])
    for name in ("apiVersion", "installHint", "interactiveMode"):
        _text(plugin, name)
    return {**plugin, "command": str(folder / command) if beside else command}


class _NotText(ValueError):
    """A value is no text, as YAML makes numbers and booleans of unquoted words."""


def _texts(values: Any) -> None:
    """ValueError unless it is nothing, or a list of texts that a command or a variable can have."""
    if not isinstance(values or [], list) or not all(
        isinstance(each, str) and "\0" not in each for each in values or ()
    ):
        raise ValueError("texts")


def _text(entry: dict[str, Any], name: str) -> str:
    """The text of that name; empty if there is none. ValueError if it is something else."""
    value = entry.get(name) or ""
    if not isinstance(value, str):
        raise _NotText(f"{name} is no text: quote it")
    return value


def _entry(entries: dict[str, Any], name: str, kind: str) -> dict[str, Any]:
    if name and name not in entries:
        raise UsageError(f"no {kind} {name!r} in the kubeconfig: it has {_names(entries)}")
    return entries.get(name) or {}


def _names(entries: dict[str, Any]) -> str:
    return ", ".join(sorted(entries)) or "none"


def own_context() -> Context:
    """The cluster that this process runs in as a pod, as its service account. NoCluster if it has none."""
    if not (_SERVICE_ACCOUNT / "token").exists():
        raise NoCluster(f"this pod has no service account's token: there is no {_SERVICE_ACCOUNT}/token")
    return Context("", "default", *_own_service_account())


def _own_service_account() -> tuple[dict[str, Any], dict[str, Any]]:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    cluster = {"server": server, "certificate-authority": str(_SERVICE_ACCOUNT / "ca.crt")}
    return cluster, {"tokenFile": str(_SERVICE_ACCOUNT / "token")}


def _server_url(cluster: dict[str, Any], user: dict[str, Any]) -> str:
    """The address of an API server; without a scheme as kubectl completes it (client-go's DefaultServerURL)."""
    server: str = cluster["server"]
    if "://" not in server:
        names = ("certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify")
        tls = any(map(cluster.get, names)) or any(map(user.get, ("client-certificate", "client-certificate-data")))
        server = f"{'https' if tls else 'http'}://{server}"
    try:
        address = urlsplit(server)
        valid = address.scheme in ("http", "https") and address.hostname and address.port != 0
    except ValueError:
        valid = False
    if not valid or not server.isprintable() or " " in server:
        raise UsageError(f"{cluster['server']!r} is no address of an API server: want https://HOST:PORT")
    return server.rstrip("/")


def _apply(flags: ClusterFlags, cluster: dict[str, Any], user: dict[str, Any]) -> None:
    """Put flags into an entry, as getAuthInfo and getCluster do in client-go's tools/clientcmd/client_config.go."""
    if flags.server:
        cluster["server"] = flags.server
    if flags.certificate_authority:
        cluster["certificate-authority"] = flags.certificate_authority
        cluster.pop("certificate-authority-data", None)
        cluster.pop("insecure-skip-tls-verify", None)
    if flags.insecure_skip_tls_verify:
        cluster["insecure-skip-tls-verify"] = True
    if flags.server or flags.tls_server_name:  # the kubeconfig's name is that of its own server
        cluster["tls-server-name"] = flags.tls_server_name
    user |= {name: value for name in ("token", "username", "password") if (value := getattr(flags, name))}
    for name, path in (("client-certificate", flags.client_certificate), ("client-key", flags.client_key)):
        if path:
            user[name] = path
            user.pop(f"{name}-data", None)
    extra: dict[str, list[str]] = {}
    for item in flags.as_user_extra:
        name, equals, value = item.partition("=")
        if not (name and equals):
            raise UsageError(f"--as-user-extra {item}: want KEY=VALUE")
        extra.setdefault(name, []).append(value)
    identity = {"as": flags.as_, "as-uid": flags.as_uid, "as-groups": list(flags.as_group), "as-user-extra": extra}
    user |= {name: value for name, value in identity.items() if value}
