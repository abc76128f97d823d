"""--to: where alerts are sent beside the screen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kubectl_gadget.detect.given import FILE, option
from kubectl_gadget.options import Option
from kubectl_gadget.tell import tell

if TYPE_CHECKING:
    from gadget.kube.api import ApiServer
    from gadget.rules.channels import Channels

_TLS = {
    "ca": "Whom to trust at https:// places, in PEM.",
    "cert": "Our own certificate for them.",
    "key": "Its key.",
}


def to_options() -> list[Option]:
    """--to, and what it needs for https://."""
    return [
        option("--to", heading="Output", multiple=True, metavar="PLACE",
               help="Send alerts there too: file:PATH, http://HOST/PATH, https://…, slack:URL, otlp:URL, "
               "program:COMMAND, syslog[:HOST:PORT], or events: Events of Kubernetes, on the pods."),
        *(option(f"--to-{name}", f"to_{name}", heading="Output", type=FILE, metavar="FILE", help=text)
          for name, text in _TLS.items()),
    ]  # fmt: skip


def channels(to: Sequence[str], ca: Path | None, cert: Path | None, key: Path | None) -> Channels:
    """A channel for each place.

    Raises:
        UsageError: There is no such place.

    """
    from gadget.rules.channels import Channels, SendPatience, Tls, make
    from kubectl_gadget.detect.written import own_name

    patience, keys = SendPatience(), Tls(ca, cert, key)
    return Channels([make(place, own_name(), keys, patience, tell, _api) for place in to], patience.drain)


def _api() -> ApiServer:
    from gadget.kube.api import api_server
    from gadget.kube.kubeconfig import read_context
    from kubectl_gadget.cluster.options import chosen_cluster

    return api_server(read_context(chosen_cluster().flags))
