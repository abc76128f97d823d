"""One `map`: the session of a stream whose flows go to pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gadget.schema import Schema
from kubectl_gadget.map.alerts import Alerts
from kubectl_gadget.map.edges import Edges
from kubectl_gadget.map.owners import Owners
from kubectl_gadget.map.server import MapServer
from kubectl_gadget.observe.session import FlowSession
from kubectl_gadget.output import Output, all_fields
from kubectl_gadget.stream.request import Request

#: How many nodes a page names that are not watched.
MOST_GAPS = 3


class MapSession(FlowSession):
    """Adds flows up for pages."""

    def __init__(self, request: Request, elsewhere: Any, server: MapServer, owners: Owners, alerts: Alerts) -> None:
        """Prepare to add up for the pages of server."""
        super().__init__(request, elsewhere)
        self._server, self._owners, self._alerts = server, owners, alerts

    @classmethod
    def on(cls, server: MapServer, owners: Owners, alerts: Alerts) -> Callable[..., MapSession]:
        """Makes sessions for the pages of server."""
        return lambda request, elsewhere: cls(request, elsewhere, server, owners, alerts)

    def _make_output(self, schema: Schema) -> Output:
        self._server.edges = Edges(self._request.gadget, all_fields(schema), self._owners, self._alerts)
        return self._server.edges

    def _so_far(self) -> str:
        gaps = list(dict.fromkeys(gap.told for gap in self._all_gaps()))
        more = f"; and {len(gaps) - MOST_GAPS} more" * (len(gaps) > MOST_GAPS)
        return super()._so_far() + "".join(f"; {gap}" for gap in gaps[:MOST_GAPS]) + more
