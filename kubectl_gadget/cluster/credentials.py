"""What proves to an API server who asks: headers and a client certificate, also those that a plugin gives."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from gadget.errors import GadgetError
from kubectl_gadget.cluster.kubeconfig import Context


@dataclass(frozen=True)
class Credentials:
    """Headers of every request; certificate and key as PEM if there is one; expires is none or when to ask again."""

    headers: tuple[tuple[str, str], ...]
    certificate: bytes = b""
    key: bytes = b""
    expires: datetime | None = None

    @property
    def expired(self) -> bool:
        """Whether they are no longer good."""
        return self.expires is not None and self.expires <= datetime.now(UTC)


def get_credentials(context: Context) -> Credentials:
    """The credentials of a context's user; runs its plugin if it has one. GadgetError if they cannot be had."""
    user = context.user
    status, expires = {}, None
    if "auth-provider" in user:
        raise GadgetError("this kubeconfig logs in by auth-provider, which kubectl has dropped: use an exec plugin")
    if plugin := user.get("exec"):
        status = _run_plugin(plugin, context)
        if text := status.get("expirationTimestamp"):
            expires = datetime.fromisoformat(text)
    headers = []
    token = status.get("token") or user.get("token")
    if not token and user.get("tokenFile"):
        token = _read(user["tokenFile"]).decode().strip()
    if token:
        headers.append(("Authorization", f"Bearer {token}"))
    elif user.get("username"):
        pair = f"{user['username']}:{user.get('password', '')}".encode()
        headers.append(("Authorization", f"Basic {base64.b64encode(pair).decode()}"))
    if user.get("as"):
        headers.append(("Impersonate-User", user["as"]))
    if user.get("as-uid"):
        headers.append(("Impersonate-Uid", user["as-uid"]))
    headers += [("Impersonate-Group", group) for group in user.get("as-groups") or ()]
    return Credentials(
        tuple(headers),
        status.get("clientCertificateData", "").encode() or read_pem(user, "client-certificate"),
        status.get("clientKeyData", "").encode() or read_pem(user, "client-key"),
        expires,
    )


def read_pem(entry: Mapping[str, Any], name: str) -> bytes:
    """A certificate or key of a kubeconfig's entry, inline or in a file; empty if it has none."""
    if data := entry.get(f"{name}-data"):
        return base64.b64decode(data)
    return _read(entry[name]) if entry.get(name) else b""


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise GadgetError(f"kubeconfig: {path}: {error.strerror}") from None


def _run_plugin(plugin: dict[str, Any], context: Context) -> dict[str, Any]:
    """The status of the ExecCredential that a plugin prints; it may ask the user on the terminal."""
    interactive = plugin.get("interactiveMode") != "Never" and sys.stdin.isatty()
    spec: dict[str, Any] = {"interactive": interactive}
    if plugin.get("provideClusterInfo"):
        spec["cluster"] = {name: value for name, value in context.cluster.items() if name != "certificate-authority"}
        if pem := read_pem(context.cluster, "certificate-authority"):
            spec["cluster"]["certificate-authority-data"] = base64.b64encode(pem).decode()
    request = {"apiVersion": plugin["apiVersion"], "kind": "ExecCredential", "spec": spec}
    environment = {item["name"]: item["value"] for item in plugin.get("env") or ()}
    environment["KUBERNETES_EXEC_INFO"] = orjson.dumps(request).decode()
    command = [plugin["command"], *(plugin.get("args") or ())]
    try:
        done = subprocess.run(
            command,
            env=os.environ | environment,
            stdin=None if interactive else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=True,
        )
        status: dict[str, Any] = orjson.loads(done.stdout)["status"]
    except OSError as error:
        hint = f". {plugin['installHint'].strip()}" if plugin.get("installHint") else ""
        raise GadgetError(f"log-in plugin {command[0]}: {error.strerror}{hint}") from None
    except subprocess.CalledProcessError as error:
        raise GadgetError(f"log-in plugin {command[0]} failed with exit code {error.returncode}") from None
    except (ValueError, KeyError, TypeError):
        raise GadgetError(f"log-in plugin {command[0]} printed no ExecCredential") from None
    return status
