"""What Hubble's clients need to reach the server that deploy makes: keys of both sides."""

from __future__ import annotations

from gadget.kube.api import ApiServer
from kubectl_gadget.cluster.certificates import of_both_sides
from kubectl_gadget.cluster.manifests import HUBBLE_SECRETS, HUBBLE_SERVICE, HubbleKeys, hubble_secret
from kubectl_gadget.cluster.objects import find

#: Under what Hubble's own page and command line expect a relay, whose place this takes, and a relay expects nodes.
_USUAL = ("*.hubble-relay.cilium.io", "*.default.hubble-grpc.cilium.io")


def keys(api: ApiServer, namespace: str) -> HubbleKeys:
    """The data of both Secrets: those of the cluster, which clients have, else new.

    Raises:
        GadgetError: They may not be read, or no certificate can be made.

    """
    there = HubbleKeys(*(find(api, hubble_secret(name, {}, namespace)).get("data") or {} for name in HUBBLE_SECRETS))
    return there if all(there) else make_keys(namespace)


def make_keys(namespace: str) -> HubbleKeys:
    """New ones. GadgetError if no certificate can be made."""
    return HubbleKeys(*of_both_sides("--hubble", server_names(namespace)))


def server_names(namespace: str) -> list[str]:
    """What the server's certificate is for, its own name first."""
    return [f"{HUBBLE_SERVICE}.{namespace}.svc", HUBBLE_SERVICE, f"{HUBBLE_SERVICE}.{namespace}", "localhost", *_USUAL]


def told(namespace: str) -> str:
    """How to reach it, in words."""
    return f"""
Hubble's clients find flows at {HUBBLE_SERVICE}.{namespace}.svc:443, with the keys of Secret {HUBBLE_SECRETS[1]}
(ca.crt, tls.crt, tls.key). Who may read that Secret sees all flows.
"""
