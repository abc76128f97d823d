"""One `observe`: the session of a stream whose rows are flows."""

from __future__ import annotations

from gadget.schema import Schema
from kubectl_gadget.observe.hubble import Flows
from kubectl_gadget.observe.lines import Lines, Told
from kubectl_gadget.output import Output, all_fields
from kubectl_gadget.session import Session


class FlowSession(Session):
    """Shows flows as events are shown."""

    thing = "flow"
    form: type[Told] | None = None

    def _make_output(self, schema: Schema) -> Output:
        if self.form is None:
            return super()._make_output(schema)
        return self.form(self._request.gadget, all_fields(schema))


class LinesSession(FlowSession):
    """Shows flows as lines."""

    form = Lines


class HubbleSession(FlowSession):
    """Shows flows as Hubble has them."""

    form = Flows
