"""What agents send of rules and of what containers do: no rows, and checked before it is used."""

from __future__ import annotations

from abc import ABC, abstractmethod

from gadget._generated import gadget_pb2 as pb
from gadget.catalog import Gadget
from gadget.errors import Malformed
from gadget.schema import Schema
from kubectl_gadget.agents import contract

#: Of rows, if there were any.
SCHEMA = Schema((), 0)
GADGET = Gadget("detect", "", "", "", "", [], [], [], {}, {}, SCHEMA, [])


class RepliesCheck(ABC):
    """Looks at the replies of one agent, in their order."""

    #: what there may be behind the beginning, and what is wrong with an agent that sends others
    whats: tuple[str, ...] = ("batch", "summary")
    wrong: str

    def __init__(self, node: str) -> None:
        """Of a node; empty if only the agent can tell."""
        self._node, self._has_begun = node, False

    def __call__(self, reply: pb.RunReply) -> None:
        """GadgetError unless a reply makes sense and can be shown."""
        node, what = self._node or reply.node, reply.WhichOneof("what")
        if what == "started":
            contract.check(node, reply.started.contract)
            self._has_begun = True
        elif not self._has_begun or what not in self.whats or not self._fits(reply.batch):
            raise Malformed(f"{node}: its agent {self.wrong}")
        elif what == "batch":
            self._check(node, reply.batch)

    @abstractmethod
    def _fits(self, batch: pb.Batch) -> bool:
        """Whether a batch has nothing but what was asked for."""

    @abstractmethod
    def _check(self, node: str, batch: pb.Batch) -> None:
        """Malformed unless a batch makes sense."""
