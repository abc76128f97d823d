"""What an API server needs to send its audit events to the receiver that deploy makes: keys, and files."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from pathlib import Path

from gadget.errors import GadgetError
from gadget.kube.api import ApiServer
from kubectl_gadget.cluster.certificates import as_data, self_signed
from kubectl_gadget.cluster.manifests import AUDIT, AUDIT_PORT, audit_secret, audit_service, read, to_yaml
from kubectl_gadget.cluster.objects import find

TOKEN_BYTES = 32
WEBHOOK, POLICY = "audit-webhook.yaml", "audit-policy.yaml"
#: Where the files are in what deploy says.
THERE = "/etc/kubernetes/gadget"


def keys(api: ApiServer, namespace: str) -> Mapping[str, str]:
    """The data of the receiver's Secret: that of the cluster, which the API server knows, else new.

    Raises:
        GadgetError: It may not be read, or no certificate can be made.

    """
    found: dict[str, str] | None = find(api, audit_secret({}, namespace)).get("data")
    return found or make_keys(namespace)


def make_keys(namespace: str) -> dict[str, str]:
    """A certificate with its key, and a token, as the data of a Secret. GadgetError if there is no openssl."""
    files = self_signed("--k8s-audit", _server_name(namespace))
    files["token"] = secrets.token_urlsafe(TOKEN_BYTES).encode()
    return as_data(files)


def write_files(api: ApiServer, namespace: str, data: Mapping[str, str], folder: Path) -> str:
    """Write the API server's files into a folder, and give what to do with them, in words.

    Raises:
        GadgetError: They cannot be written, or the receiver has no address.

    """
    address = find(api, audit_service(namespace)).get("spec", {}).get("clusterIP") or ""
    if address in ("", "None"):
        raise GadgetError(f"Service {AUDIT} has no address: the API server cannot be told where to send audit events")
    host = f"[{address}]" if ":" in address else address
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / WEBHOOK, to_yaml([_webhook(f"https://{host}:{AUDIT_PORT}/k8s-audit", namespace, data)]))
        _write(folder / POLICY, read(POLICY))
    except OSError as error:
        raise GadgetError(f"--k8s-audit {folder}: {error.strerror or error}") from None
    return f"""
Audit events are received at {host}:{AUDIT_PORT}. For the API server to send them,
copy {folder}/ to {THERE} on each machine that has one, and
start kube-apiserver with
  --audit-webhook-config-file={THERE}/{WEBHOOK}
  --audit-policy-file={THERE}/{POLICY}
{WEBHOOK} has a token: who knows it can send events, too.
"""


def _server_name(namespace: str) -> str:
    return f"{AUDIT}.{namespace}.svc"


def _webhook(server: str, namespace: str, data: Mapping[str, str]) -> dict[str, object]:
    """The kubeconfig of the API server's audit webhook. It need not know the cluster's DNS."""
    cluster = {
        "server": server,
        "tls-server-name": _server_name(namespace),
        "certificate-authority-data": data["tls.crt"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "gadget", "cluster": cluster}],
        "users": [{"name": "gadget", "user": {"token": base64.b64decode(data["token"]).decode()}}],
        "contexts": [{"name": "gadget", "context": {"cluster": "gadget", "user": "gadget"}}],
        "current-context": "gadget",
    }


def _write(path: Path, text: str) -> None:
    """A file that its owner alone can read."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
