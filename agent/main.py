"""gadget-agent: the command."""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.answering import GRACE_SECONDS, serve
from agent.bpf.bpffs import check_free, end, mount_bpffs
from agent.containers import pod_settings
from agent.containers.tracker import Tracker, unpin_containers
from agent.daemon import Stopped, run
from agent.folders import NotOurs, check_own, own_folder, remove
from agent.limits import RunBudget, bytes_for_runs, machine_bytes, memory_limit, raise_descriptors
from agent.listen import DEFAULT, UNIX, close_to_others, place
from agent.logs import LEVELS, log_to_stderr
from agent.rights import require_rights
from agent.run.runs import Runs
from agent.server import MAX_FILES, AgentService
from agent.service import Running, Service, ServiceContext
from agent.services import find_services
from agent.settings import check_sets, given, make, options, read_file, setting
from gadget import __version__
from gadget.errors import GadgetError, NoBpffs, UsageError
from gadget.memory import expect_batches
from gadget.runtimes import State, parse_state

if TYPE_CHECKING:
    from agent.containers.pods import PodWatch

log = logging.getLogger("agent")


def _end_with_stdin(stopped: Stopped) -> None:
    """Stop when the other end of standard input is closed, however its process ended."""
    while os.read(0, 4096):
        pass
    stopped.say()


def _pattern(text: str) -> str:
    try:
        re.compile(os.fsencode(text))
    except re.error as error:
        raise UsageError(f"--redact: {error}") from None
    return text


@dataclass(frozen=True)
class Settings:
    """Settings of the agent itself."""

    listen: str = setting(f"{UNIX}{DEFAULT}", "unix:///PATH or HOST:PORT.", option="--listen")
    listen_local_users: bool = setting(
        False,
        "Allow a port of this machine, by which each of its users may trace all of it.",
        option="--listen-local-users",
    )
    listen_anywhere: bool = setting(
        False, "Allow an address that other machines can reach.", option="--listen-anywhere"
    )
    node: str = setting(socket.gethostname, "Name of this node.", option="--node", variable="NODE_NAME", shown="host's")
    pod_uid: str = setting(
        "",
        "The pod that this agent is in: pods in another node's cgroups are left to that one.",
        option="--pod-uid",
        variable="POD_UID",
        metavar="UID",
    )
    host_root: Path = setting(
        Path("/"), "Where the host's file system is mounted.", option="--host-root", metavar="PATH"
    )
    runtime_state: tuple[State, ...] = setting(
        (),
        "Where a runtime, containerd if none is named, keeps its state. Repeatable.",
        option="--runtime-state",
        read=parse_state,
        metavar="[RUNTIME=]PATH",
    )
    log_level: str = setting(
        "info", "What to log to stderr: text on a terminal, else JSON.", option="--log-level", choices=LEVELS
    )
    kubernetes: bool = setting(
        lambda: "KUBERNETES_SERVICE_HOST" in os.environ,
        "Watch this node's pods for their labels.",
        option="--kubernetes",
        shown="in a pod",
    )
    redact: tuple[str, ...] = setting(
        (),
        "Mask what matches in texts of containers before they leave this machine.",
        option="--redact",
        read=_pattern,
        metavar="REGEX",
    )
    bpffs: Path = setting(
        Path("/sys/fs/bpf"),
        "Where recordings stay while no agent runs; mounted if it is not.",
        option="--bpffs",
        metavar="PATH",
    )
    state: Path = setting(
        Path("/var/lib/gadget"),
        "Where recordings of an older agent are saved if this one cannot go on with them.",
        option="--state",
        metavar="PATH",
    )
    # deploy gives more rights to an agent that ends for it
    expect_bpffs: bool = setting(False, "End where there is no bpffs.", option="--expect-bpffs", hidden=True)


#: The names of the agent's own sections, beside those of services.
AGENT, PODS = "agent", "pods"


class AgentCommand(click.Command):
    """The command; its options are the settings of the agent and of its services."""

    def __init__(self) -> None:
        """Find the services, and make the options."""
        self.services = find_services()
        #: the class of each section
        self.sections: dict[str, type[Any]] = {
            AGENT: Settings,
            PODS: pod_settings.Settings,
            **{name: each.settings for name, each in self.services.items()},
        }
        super().__init__(
            "gadget-agent",
            context_settings={"help_option_names": ["-h", "--help"]},
            help="""Trace this machine's containers for kubectl-gadget.

            Needs root, or CAP_BPF, CAP_PERFMON and CAP_DAC_READ_SEARCH. Each option is also a key of the file of
            --config, in the section of its service.
            """,
            params=[
                click.Option(
                    ["--config"],
                    type=click.Path(path_type=Path),
                    help="File of settings, in TOML. An option or a variable of the environment goes before it.",
                ),
                click.Option(
                    ["--set", "sets"],
                    multiple=True,
                    metavar="SECTION.KEY=VALUE",
                    help="Any setting, also one without an option of its own. Repeatable.",
                ),
                *(option for name, kind in self.sections.items() for option in options(name, kind)),
                click.Option(["--end-with-stdin"], is_flag=True, hidden=True),
            ],
            callback=self._run,
        )
        click.version_option(__version__)(self)

    def settings(self, context: click.Context) -> dict[str, Any]:
        """The settings of each section."""
        path = context.params["config"]
        check_sets(context.params["sets"], self.sections)
        tables = read_file(path, self.sections) if path else {}
        made: dict[str, Any] = {}
        for name, kind in self.sections.items():
            said = given(context, name, kind, context.params["sets"])
            made[name] = make(name, kind, said, os.environ, tables.get(name, {}), path)
        return made

    def _run(self, end_with_stdin: bool, **_: Any) -> None:
        os.umask(0o077)  # only this user can read what the agent makes, sockets and pins too; folders can be entered
        settings = self.settings(click.get_current_context())
        own: Settings = settings[AGENT]
        log_to_stderr(own.log_level)
        require_rights()
        if problem := raise_descriptors(MAX_FILES):
            log.warning("%s", problem)
        expect_batches()
        stopped = Stopped()
        if end_with_stdin:
            threading.Thread(target=_end_with_stdin, args=(stopped,), name="stdin", daemon=True).start()
        serve_all = partial(_serve, self.services, settings, stopped, end_with_stdin)
        try:
            with place(own.listen, own.listen_local_users, own.listen_anywhere):
                serve_all()
        finally:
            if end_with_stdin and own.listen.startswith(UNIX):
                with suppress(OSError):  # made for this agent alone, by a command line that may have been killed
                    Path(own.listen.removeprefix(UNIX)).parent.rmdir()


def _serve(
    services: Mapping[str, Service[Any]], settings: Mapping[str, Any], stopped: Stopped, for_one_command: bool
) -> None:
    own: Settings = settings[AGENT]
    on = {
        name: each
        for name, each in services.items()
        if (each.for_one_command or not for_one_command) and each.is_on(settings[name])
    }
    with ExitStack() as stack:
        pins, no_pins = own.bpffs / "gadget", ""
        kept = [each for each in on.values() if each.kept]
        if kept:
            try:
                mount_bpffs(own.bpffs)
                os.close(own_folder(pins))
                check_own(own.state)
            except (NoBpffs, NotOurs, OSError) as error:  # gadgets work all the same
                if own.expect_bpffs and isinstance(error, NoBpffs):
                    raise
                no_pins = str(error)
                log.warning("no recorder: %s", no_pins)
                on = {name: each for name, each in on.items() if not each.kept}
        for each in kept if not no_pins else ():
            check_free(pins / each.name)  # before any begins: what this agent begins stays when it ends
        recorded = bool(kept) and not no_pins  # pinned by programs that outlive this process
        tracker = stack.enter_context(
            closing(Tracker(own.host_root, pins if recorded else None, own.pod_uid, own.runtime_state))
        )
        if own.kubernetes:
            tracker.pods = _watch_pods(own.node, tracker.changed, settings[PODS])
        if not for_one_command:
            others = [each.name for each in services.values() if each.kept and not each.is_on(settings[each.name])]
            ended = [name for name in others if _end_earlier(name, pins / name, own.state / name)]
            if ended and not recorded:
                unpin_containers(pins)
        in_kernel = sum(each.memory(settings[name]) for name, each in on.items())
        budget = RunBudget(bytes_for_runs(memory_limit(), in_kernel, machine_bytes()), own.node)
        context = ServiceContext(
            own.node, tracker, pins, own.state, own.redact, Runs(own.redact), budget, on=frozenset(on)
        )
        for name, each in services.items():
            why_not = no_pins if each.kept and each.is_on(settings[name]) else ""
            running = _begin(each, context, settings[name]) if name in on else each.off(context, why_not)
            context.running[name] = stack.enter_context(closing(running))
        service = AgentService(own.node, tracker, context.running, context.runs, budget)
        server = serve(own.listen, service)
        close_to_others(own.listen)
        click.echo(f"listening on {own.listen}")  # a parent process waits for this line
        stopped.wait()
        log.info("stopping")
        service.finish()
        server.stop(GRACE_SECONDS).wait(GRACE_SECONDS + 1)  # its own thread may have died


def _begin(service: Service[Any], context: ServiceContext, settings: Any) -> Running:
    """A service at work, or what says why it is not; gadgets work all the same."""
    try:
        return service.begin(context, settings)
    except service.lacking as error:
        log.warning("%s is off here: %s", service.name, error)
        return service.off(context, str(error))


def _end_earlier(what: str, folder: Path, state: Path) -> bool:
    """End what an earlier agent began, unless that agent runs. Returns whether there was something to end."""
    try:
        ended = end(folder)
        if ended and state.exists():
            remove(state)
    except (GadgetError, OSError) as error:
        log.warning("%s is off here: %s", what, error)
        return False
    if ended:
        log.info("%s: off: what was recorded is gone", what)
    return ended


def _watch_pods(node: str, changed: Callable[[], None], settings: pod_settings.Settings) -> PodWatch:
    """A watch of the node's pods, by the pod's service account or a kubeconfig."""
    from agent.containers.pods import PodWatch  # 3 MiB, with HTTP and TLS, that an agent without does without
    from gadget.kube.api import ApiServer
    from gadget.kube.kubeconfig import ClusterFlags, own_context, read_context

    try:
        context = own_context() if "KUBERNETES_SERVICE_HOST" in os.environ else read_context(ClusterFlags())
    except GadgetError as error:
        raise GadgetError(f"--kubernetes: {error}") from None
    return PodWatch(ApiServer(context), node, changed, settings)


def main() -> None:
    """Run the command; errors are one line and their exit code."""
    run(AgentCommand())
