"""One `observe`: the session of a stream whose rows are flows."""

from __future__ import annotations

from gadget.schema import Schema
from kubectl_gadget.observe.lines import Lines
from kubectl_gadget.output import Output, all_fields
from kubectl_gadget.session import Session


class FlowSession(Session):
    """Shows flows as events are shown."""

    thing = "flow"


class LinesSession(FlowSession):
    """Shows flows as lines."""

    def _make_output(self, schema: Schema) -> Output:
        return Lines(self._request.gadget, all_fields(schema))


def session_of(*, as_lines: bool) -> type[Session]:
    """What shows flows."""
    return LinesSession if as_lines else FlowSession
