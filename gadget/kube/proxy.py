"""Finds the proxy to a server as kubectl does, by the rules of Go's golang.org/x/net/http/httpproxy."""

from __future__ import annotations

import base64
import os
from ipaddress import ip_address, ip_network
from urllib.parse import SplitResult, unquote, urlsplit

from gadget.errors import GadgetError

_PORTS = {"http": 80, "https": 443}


def find_proxy(server: str, chosen: str) -> SplitResult | None:
    """The proxy for a server's URL: the one chosen for its cluster, else the environment's. GadgetError if unusable."""
    address = urlsplit(server)
    port = address.port or _PORTS[address.scheme]
    proxy = chosen
    if not proxy and _may_go_by_proxy(address.hostname or "", port):
        proxy = _environment(f"{address.scheme}_proxy")
    if not proxy:
        return None
    try:
        found = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        usable = found.scheme == "http" and found.hostname and found.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise GadgetError(f"proxy {proxy}: want http://HOST:PORT")
    return found


def proxy_headers(proxy: SplitResult) -> dict[str, str]:
    """The headers that authenticate us to a proxy."""
    if not proxy.username:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair).decode()}"}


def _environment(name: str) -> str:
    return os.environ.get(name.upper()) or os.environ.get(name) or ""


def _may_go_by_proxy(host: str, port: int) -> bool:
    """Whether NO_PROXY allows a proxy for this host. Servers on this machine are never reached by a proxy."""
    try:
        address = ip_address(host)
    except ValueError:
        address = None
    if host == "localhost" or (address and address.is_loopback):
        return False
    for entry in _environment("no_proxy").lower().split(","):
        entry = entry.strip()
        if entry == "*":
            return False
        try:
            network = ip_network(entry, strict=False)
            if address and address in network:
                return False
            continue
        except ValueError:
            pass  # no address
        name, colon, wanted = entry.rpartition(":")
        if not colon or not wanted.isdigit():
            name, wanted = entry, ""
        if wanted and int(wanted) != port:
            continue
        if _matches(name.strip("[]"), host.lower()):
            return False
    return True


def _matches(name: str, host: str) -> bool:
    """Whether an entry of NO_PROXY names a host. .example.com and *.example.com name hosts below only."""
    name = name.removeprefix("*")
    if name.startswith("."):
        return len(name) > 1 and host.endswith(name)
    return bool(name) and (host == name or host.endswith(f".{name}"))
