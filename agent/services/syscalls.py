"""The recorder of system calls as a service: which ones each workload makes."""

from __future__ import annotations

from agent.service import Service, ServiceContext
from agent.syscalls.recorder import SyscallRecorder
from agent.syscalls.service import SyscallsService
from agent.syscalls.settings import Settings


def _begin(context: ServiceContext, settings: Settings) -> SyscallsService:
    recorder = SyscallRecorder(context.tracker, context.pins / "syscalls", context.state / "syscalls", settings)
    return SyscallsService(context.node, recorder)


SERVICE = Service(
    "syscalls",
    Settings,
    _begin,
    lambda context, why_not: SyscallsService(context.node, None, why_not),
    is_on=lambda settings: settings.on,
    kept=True,
)
