"""`kubectl gadget hubble serve`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gadget import catalog
from gadget.errors import UsageError
from gadget.text import host_and_port
from kubectl_gadget.cluster.options import cluster_options
from kubectl_gadget.headed import HeadedCommand
from kubectl_gadget.observe.command import GADGET, read_log_of
from kubectl_gadget.options import Option, where_options
from kubectl_gadget.stream.request import make_request
from kubectl_gadget.tell import tell

if TYPE_CHECKING:
    from kubectl_gadget.agents.targets import Targets

#: Where the `hubble` command line looks if it is not told.
LISTEN = "127.0.0.1:4245"
#: Hubble's own largest.
KEEP = 65_535
_MOST_KEPT = (1 << 24) - 1


class HubbleCommand(click.Group):
    """`hubble`: for Hubble's clients."""

    title = "flows, served to Hubble's own command line, page and relay"

    def __init__(self) -> None:
        """Make the group."""
        super().__init__("hubble", help=f"Has {self.title}.", short_help=self.title)
        self.context_settings = {"help_option_names": ["-h", "--help"]}
        self.add_command(ServeCommand())


class ServeCommand(HeadedCommand):
    """`hubble serve`: until Ctrl-C."""

    def __init__(self) -> None:
        """Make the command."""
        where = {option.name: option for option in where_options()}
        super().__init__(
            "serve",
            "what `observe` has to Hubble's clients, until Ctrl-C",
            "kubectl gadget hubble serve & hubble observe -f",
            [
                Option(["--listen"], heading="Service", default=LISTEN, metavar="HOST:PORT",
                       help=f"Where clients find it. Who can reach it sees all flows. [default: {LISTEN}]"),
                Option(["--keep"], heading="Service", type=click.IntRange(1, _MOST_KEPT), default=KEEP, metavar="N",
                       help=f"How many flows clients can look back on, of all nodes. [default: {KEEP}]"),
                Option(["--tls", "folder"], heading="Service", type=click.Path(path_type=Path), metavar="DIR",
                       help="TLS, with tls.crt and tls.key there, for those whose certificates its ca.crt signed."),
                Option(["--tls-name"], heading="Service", default="", metavar="NAME",
                       help="What tls.crt is for, which hubble-relay is told."),
                Option(["--metrics"], heading="Service", default="", metavar="HOST:PORT",
                       help="Count flows for Prometheus there, by Hubble's names and by workloads."),
                # deploy --hubble sets it, and status asks there
                Option(["--status"], heading="Service", default="", hidden=True, metavar="HOST:PORT"),
                where["local"],
                where["agent"],
                *cluster_options(),
            ],
            self._run,
            verb="Serves",
        )  # fmt: skip

    def _run(
        self,
        listen: str,
        keep: int,
        folder: Path | None,
        tls_name: str,
        metrics: str,
        status: str,
        local: bool,
        agent: tuple[str, ...],
    ) -> None:
        if host_and_port(listen) is None:
            raise UsageError(f"--listen {listen}: want HOST:PORT, such as {LISTEN}")
        request = make_request(catalog.find(GADGET), {}, "json", "", (), "", standing=GADGET, last=keep, follow=True)
        from gadget.exposition import PATH
        from kubectl_gadget.hubble.living import has_all_nodes, keep_asking
        from kubectl_gadget.hubble.metrics import FlowTotals, serving
        from kubectl_gadget.hubble.ring import FlowRing  # grpc and numpy
        from kubectl_gadget.hubble.server import Certificates, Server
        from kubectl_gadget.hubble.session import ServedSession
        from kubectl_gadget.hubble.state import HubbleState

        if tls_name and not folder:
            raise UsageError("--tls-name: it goes with --tls")
        ring, keys = FlowRing(keep), Certificates.read(folder, tls_name) if folder else None
        totals = FlowTotals() if metrics else None
        with ExitStack() as stack:
            server = stack.enter_context(Server(listen, ring, keys))
            if status:
                stack.enter_context(HubbleState(status, server))
            if totals:
                tell(f"numbers at http://{stack.enter_context(serving(metrics, totals))}{PATH}")

            def caught_up() -> None:
                server.caught_up()
                how = "" if listen == LISTEN and not keys else f" --server {server.address}"
                how += " --tls …" if keys else ""
                tell(f"serving flows on {server.address}, until Ctrl-C. Try: hubble observe{how}")

            def make(*args: Any) -> ServedSession:
                server.observer.session = ServedSession(ring, totals, caught_up, *args)
                return server.observer.session

            def make_for(targets: Targets) -> Callable[..., ServedSession]:
                if totals and has_all_nodes(agent, local):
                    keep_asking(targets, totals)
                return make

            read_log_of(request, agent, local, (), make_for)
