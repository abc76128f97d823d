"""Checks the replies of a run before they are used: whether they fit, and the node's own names for values."""

from __future__ import annotations

from gadget import filters
from gadget._generated import gadget_pb2 as pb
from gadget.checks import check_alike, check_batch, parse_schema
from gadget.errors import Malformed, Unsupported, UsageError
from gadget.filters import Filter
from gadget.schema import IDENTITY, Schema
from kubectl_gadget.agents import contract
from kubectl_gadget.output import all_fields
from kubectl_gadget.stream.request import Request


def read_started(request: Request, node: str, started: pb.Started) -> tuple[Schema, Filter]:
    """A node's schema, and the filter in its words. GadgetError if they are not what request asks for."""
    contract.check(node, started.contract)
    schema = parse_schema(node, started.schema)
    check_alike(node, schema, request.gadget.schema)
    if missing := request.demanded - set(all_fields(schema) | schema.parts):
        names = ", ".join(sorted(missing))
        raise Unsupported(f"{node}: its agent is of another version and does not know {names}")
    try:
        return schema, filters.parse(request.conditions, schema, IDENTITY)
    except UsageError as error:  # no word of its agent's
        raise Unsupported(f"{node}: its agent is of another version: {error}") from None


def read_usual(request: Request, schema: Schema) -> Filter | None:
    """The condition of rows that are shown without --all, if a node's agent knows its fields."""
    try:
        return filters.parse(request.usual, schema, IDENTITY) if request.usual else None
    except UsageError:
        return None


class RunCheck:
    """Looks at the replies of one run, in their order."""

    def __init__(self, request: Request, node: str) -> None:
        """Those to a request; node is empty if only the agent can tell."""
        self._request = request
        self._node = node
        self._schema: Schema | None = None

    def __call__(self, reply: pb.RunReply) -> None:
        """GadgetError unless a reply makes sense and can be shown."""
        node, what = self._node or reply.node, reply.WhichOneof("what")
        if what == "started":
            self._schema, _ = read_started(self._request, node, reply.started)
        elif self._schema is None or what is None:
            raise Malformed(f"{node}: its agent says nothing of what its events look like")
        elif what == "batch":
            check_batch(node, self._schema, reply.batch)
