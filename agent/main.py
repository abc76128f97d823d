"""gadget-agent: the command."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agent.bpffs import end, mount_bpffs
from agent.flows.recorder import FlowRecorder
from agent.flows.service import FlowsService
from agent.flows.table import ENTRIES
from agent.folders import NotOurs, check_own, own_folder
from agent.identity import Container
from agent.inspect.service import Inspector
from agent.limits import RunBudget, bytes_for_runs, machine_bytes, memory_limit, raise_descriptors
from agent.listen import DEFAULT, UNIX, check_reach, close_to_others, unix_socket
from agent.logs import log_to_stderr
from agent.rights import require_rights
from agent.run.runs import Runs
from agent.server import GRACE_SECONDS, MAX_FILES, AgentService, serve
from agent.standing.service import KEEP_BYTES, StandingService
from agent.traceloop.recorder import TOTAL_BYTES, Recorder, Settings
from agent.traceloop.redact import Redactor
from agent.traceloop.service import TraceloopService
from agent.tracker import Tracker, unpin_containers
from gadget import __version__
from gadget.errors import GadgetError, KernelLacks, NoBpffs, Unsupported
from gadget.memory import expect_batches
from gadget.runtimes import State, parse_state
from gadget.selector import parse_recorded

if TYPE_CHECKING:
    from agent.pods import PodWatch

#: Of an option: whether it is there and may be read is told by what uses it, in words of its own.
FOLDER = click.Path(path_type=Path, readable=False)
LEVELS = ("debug", "info", "warning", "error")
log = logging.getLogger("agent")
R = TypeVar("R", Recorder, FlowRecorder)


#: Has an item when the agent is to end. It is no Event, as a signal's handler could not set that safely: if the signal
#: comes while the wait begins, the thread already has the lock that set() needs. SimpleQueue.put needs no lock.
Stopped = SimpleQueue[None]


def _end_with_stdin(stopped: Stopped) -> None:
    """Stop when the other end of standard input is closed, however its process ended."""
    while os.read(0, 4096):
        pass
    stopped.put(None)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--listen", default=f"{UNIX}{DEFAULT}", show_default=True, help="unix:///PATH or HOST:PORT.")
@click.option("--listen-local-users", is_flag=True,
              help="Allow a port of this machine, by which each of its users may trace all of it.")  # fmt: skip
@click.option("--listen-anywhere", is_flag=True, help="Allow an address that other machines can reach.")
@click.option("--node", envvar="NODE_NAME", default=socket.gethostname, help="Name of this node. [default: host's]")
@click.option("--pod-uid", envvar="POD_UID", default="", metavar="UID",
              help="The pod that this agent is in: pods in another node's cgroups are left to that one.")  # fmt: skip
@click.option("--host-root", type=FOLDER, default="/", show_default=True,
              help="Where the host's file system is mounted.")  # fmt: skip
@click.option("--runtime-state", "states", multiple=True, metavar="[RUNTIME=]PATH",
              callback=lambda context, parameter, value: tuple(map(parse_state, value)),
              help="Where a runtime, containerd if none is named, keeps its state. Repeatable.")  # fmt: skip
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True,
              help="What to log to stderr: text on a terminal, else JSON.")  # fmt: skip
@click.option("--kubernetes/--no-kubernetes", default="KUBERNETES_SERVICE_HOST" in os.environ,
              help="Watch this node's pods for their labels. [default: in a pod]")  # fmt: skip
@click.option(
    "--traceloop",
    default="all",
    show_default=True,
    callback=lambda context, parameter, value: parse_recorded(value),
    metavar="all|off|NAMESPACE,…",
    help="Whose last system calls to keep. The annotation kubectl-gadget/traceloop: off leaves a pod out.",
)
@click.option("--traceloop-memory", type=click.IntRange(1), default=TOTAL_BYTES >> 20, show_default=True,
              metavar="MIB", help="Memory for all recordings, at most; each takes about 0.5 MiB.")  # fmt: skip
@click.option("--redact", multiple=True, metavar="REGEX",
              help="Mask what matches in texts of containers before they leave this machine.")  # fmt: skip
@click.option("--flows/--no-flows", default=True, show_default=True,
              help="Record who talks to whom, for `advise network-policy`.")  # fmt: skip
@click.option("--flows-limit", type=click.IntRange(64), default=ENTRIES, show_default=True, metavar="N",
              help="Flows kept at most, of 200 bytes each.")  # fmt: skip
@click.option("--runs", type=FOLDER, default="/etc/gadget/runs.d", show_default=True,
              help="Folder of files NAME.toml, each a standing run.")  # fmt: skip
@click.option("--runs-keep", type=click.IntRange(1), default=KEEP_BYTES >> 20, show_default=True, metavar="MIB",
              help="What all standing runs may keep, in files below --state.")  # fmt: skip
@click.option("--bpffs", type=FOLDER, default="/sys/fs/bpf", show_default=True,
              help="Where recordings stay while no agent runs; mounted if it is not.")  # fmt: skip
@click.option("--state", type=FOLDER, default="/var/lib/gadget", show_default=True,
              help="Where recordings of an older agent are saved if this one cannot go on with them.")  # fmt: skip
@click.option("--expect-bpffs", is_flag=True, hidden=True)  # deploy gives more rights to an agent that ends for it
@click.option("--end-with-stdin", is_flag=True, hidden=True)
@click.version_option(__version__)
def command(
    listen: str, listen_local_users: bool, listen_anywhere: bool, log_level: str, end_with_stdin: bool, **rest: Any
) -> None:
    """Trace this machine's containers for kubectl-gadget.

    Needs root, or CAP_BPF, CAP_PERFMON and CAP_DAC_READ_SEARCH.
    """
    os.umask(0o077)  # only this user can read what the agent makes, sockets and pins too; folders can be entered
    log_to_stderr(log_level)
    require_rights()
    if problem := raise_descriptors(MAX_FILES):
        log.warning("%s", problem)
    expect_batches()
    rest["for_one_command"] = end_with_stdin
    stopped: Stopped = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.put(None))
    if end_with_stdin:
        threading.Thread(target=_end_with_stdin, args=(stopped,), name="stdin", daemon=True).start()
    if listen.startswith(UNIX):
        path = Path(listen.removeprefix(UNIX))
        with unix_socket(path):
            _serve(listen, stopped, **rest)
        if end_with_stdin:
            with suppress(OSError):
                path.parent.rmdir()  # made for this agent alone, by a command line that may have been killed
    else:
        check_reach(listen, listen_local_users, listen_anywhere)
        _serve(listen, stopped, **rest)


def _serve(
    listen: str,
    stopped: Stopped,
    node: str,
    pod_uid: str,
    host_root: Path,
    states: tuple[State, ...],
    kubernetes: bool,
    traceloop: frozenset[str] | None,
    traceloop_memory: int,
    redact: tuple[str, ...],
    flows: bool,
    flows_limit: int,
    runs: Path,
    runs_keep: int,
    bpffs: Path,
    state: Path,
    for_one_command: bool,
    expect_bpffs: bool,
) -> None:
    redactor = Redactor(redact) if redact else None
    with ExitStack() as stack:
        pins, why_not = bpffs / "gadget", ""
        if traceloop is not None or flows:
            try:
                mount_bpffs(bpffs)
                os.close(own_folder(pins))
                check_own(state)
            except (NoBpffs, NotOurs, OSError) as error:  # gadgets work all the same
                if expect_bpffs and isinstance(error, NoBpffs):
                    raise
                why_not = str(error)
                log.warning("no recorder: %s", why_not)
        recorded = (traceloop is not None or flows) and not why_not  # pinned by programs that outlive this process
        tracker = stack.enter_context(closing(Tracker(host_root, pins if recorded else None, pod_uid, states)))
        if kubernetes:
            tracker.pods = _watch_pods(node, tracker.changed)
        recorder, no_traceloop = None, why_not
        recorded_flows, no_flows = None, why_not
        if not for_one_command:
            others = {"traceloop": traceloop is None, "flows": not flows}
            ended = [what for what, is_off in others.items() if is_off and _end_earlier(what, pins / what)]
            if ended and not recorded:
                unpin_containers(pins)
        if traceloop is not None and not why_not:
            settings = Settings(
                pins / "traceloop",
                state / "traceloop",
                lambda container: not traceloop or container.namespace in traceloop,
                traceloop_memory << 20,
            )
            recorder, no_traceloop = _begin("traceloop", stack, lambda: Recorder(tracker, settings))
        if flows and not why_not:
            place = pins / "flows", state / "flows"
            recorded_flows, no_flows = _begin("flows", stack, lambda: FlowRecorder(tracker, *place, flows_limit))
        recordings = traceloop_memory << 20 if recorder else 0
        budget = RunBudget(bytes_for_runs(memory_limit(), recordings, machine_bytes()), node)
        all_runs, standing, no_standing = Runs(), None, ""
        if not for_one_command:
            try:
                standing = stack.enter_context(
                    closing(StandingService(node, all_runs, tracker, budget, state / "runs", runs, runs_keep << 20))
                )
            except (Unsupported, OSError) as error:
                no_standing = str(error)
                log.warning("no standing runs: %s", error)
        service = AgentService(
            node,
            tracker,
            TraceloopService(node, recorder, redactor, no_traceloop, partial(_labels, tracker, recorded_flows)),
            FlowsService(node, tracker, recorded_flows, no_flows),
            [
                *(each.worker for each in (tracker, tracker.pods, recorded_flows) if each),
                *(recorder.workers if recorder else ()),
            ],
            Inspector(node, tracker, redactor.mask if redactor else None),
            all_runs,
            budget,
            standing,
            no_standing,
        )
        server = serve(listen, service)
        close_to_others(listen)
        click.echo(f"listening on {listen}")  # a parent process waits for this line
        stopped.get()
        log.info("stopping")
        service.finish()
        server.stop(GRACE_SECONDS).wait(GRACE_SECONDS + 1)  # its own thread may have died


def _labels(tracker: Tracker, flows: FlowRecorder | None, container: Container) -> Mapping[str, str] | None:
    """The labels of a container's pod, also of one that is gone if flows are recorded; None if they are not known."""
    found = tracker.labels(container)
    return flows.labels(container.pod_uid) if found is None and flows else found


def _end_earlier(what: str, folder: Path) -> bool:
    """End what an earlier agent began, unless that agent runs. Returns whether there was something to end."""
    try:
        ended = end(folder)
    except (GadgetError, OSError) as error:
        log.warning("%s is off here: %s", what, error)
        return False
    if ended:
        log.info("%s: off: what was recorded is gone", what)
    return ended


def _begin(what: str, stack: ExitStack, make: Callable[[], R]) -> tuple[R | None, str]:
    """A recorder that ends with stack, or why there is none; gadgets work all the same."""
    try:
        return stack.enter_context(closing(make())), ""
    except (KernelLacks, OSError) as error:
        log.warning("%s: nothing is recorded: %s", what, error)
        return None, str(error)


def _watch_pods(node: str, changed: Callable[[], None]) -> PodWatch:
    """A watch of the node's pods, by the pod's service account or a kubeconfig."""
    from agent.pods import PodWatch  # 3 MiB, with HTTP and TLS, that an agent without does without
    from gadget.kube.api import ApiServer
    from gadget.kube.kubeconfig import Flags, own_context, read_context

    try:
        context = own_context() if "KUBERNETES_SERVICE_HOST" in os.environ else read_context(Flags())
    except GadgetError as error:
        raise GadgetError(f"--kubernetes: {error}") from None
    return PodWatch(ApiServer(context), node, changed)


def main() -> None:
    """Run the command; errors are one line and their exit code."""
    try:
        command.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except (GadgetError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code if isinstance(error, GadgetError) else 1)
