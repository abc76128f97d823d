"""Begins what is asked for on every target. Agents are at work then while numpy is imported, which shows it."""

from __future__ import annotations

from gadget._generated import gadget_pb2 as pb
from kubectl_gadget.request import Request
from kubectl_gadget.streams import Check, Streams
from kubectl_gadget.targets import Targets


def begin(request: Request, targets: Targets) -> Streams:
    """The streams of a request to the targets, which begin as their context is entered."""
    first = pb.RunRequest(start=start_of(request))
    if request.standing:
        attach = pb.Attach(name=request.standing, since_ns=request.since_ns, follow=request.follow)
        first = pb.RunRequest(attach=attach)

    def check(node: str) -> Check:
        from kubectl_gadget.replies import RunCheck  # numpy

        return RunCheck(request, node)

    return Streams(targets, first, check, endless=request.follow or not request.standing)


def start_of(request: Request) -> pb.Start:
    """What an agent is asked to run."""
    return pb.Start(
        gadget=request.gadget.name,
        parameters=request.parameters,
        selection=pb.Selection(**request.selection.message()),
        ring_bytes=request.ring_bytes,
    )
