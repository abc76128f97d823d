"""The commands list, status and version: what there is, where it cannot be, and how it is."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import click

from gadget import CONTRACT, __version__, catalog
from gadget.errors import GadgetError, Unreachable
from gadget.schema import Column, Row
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.cluster.options import SERVERS, chosen_cluster, cluster_options
from kubectl_gadget.headed import HeadedCommand
from kubectl_gadget.options import output_options, where_options
from kubectl_gadget.output import Extent, Look, find_form, make_output, terminal, write_table
from kubectl_gadget.tell import tell, write_line
from kubectl_gadget.where import find_targets

ANSWER_SECONDS = 5.0
#: An agent that is asked for the first time what its kernel cannot run loads every gadget.
LOAD_SECONDS = 60.0
#: Nodes that are named of those that cannot run a gadget.
MOST_NAMED = 5
#: The largest number of events that is shown: what JSON can have.
MOST = (1 << 64) - 1
FIELDS = [
    *(Column(name, "identity") for name in ("node", "state", "agent", "kernel", "btf", "cgroups")),
    Column("containers", "int"),
    Column("runs", "int"),
    Column("events", "int"),
    Column("rate", "rate"),
    Column("lost", "int"),
    Column("memory", "some_size"),
    Column("traceloop", "identity"),
    Column("flows", "identity"),
]
LOOK = Look(
    narrow=("cgroups", "btf", "programs", "agent", "kernel", "flows", "runs", "rate", "memory", "events", "traceloop"),
    failed={"state": lambda state: state != "ready", "lost": bool},
)
WIDE = [Column("programs", "objects"), Column("services", "objects")]
#: Services of agents have a column each, those that have one above and so many others: agents may say anything.
MORE_SERVICES = 8
#: Services of an agent whose problems are told.
MOST_SERVICES = 64
_SERVICE = re.compile(r"[a-z][a-z0-9-]{0,31}")


def _where() -> list[click.Parameter]:
    return [option for option in where_options() if option.name in ("local", "agent")] + cluster_options()


class ListCommand(HeadedCommand):
    """`list`: the gadgets, and which of them nodes cannot run."""

    def __init__(self) -> None:
        """Make the command."""
        form, *_ = output_options()
        title = "the gadgets there are, and which of them nodes cannot run"
        super().__init__("list", title, "kubectl gadget list", [*_where(), form], self._run)

    def _run(self, local: bool, agent: tuple[str, ...], form: str) -> None:
        fields = [Column(name, "identity") for name in ("name", "group", "title")]
        rows: list[Row] = [(item.command, item.group, item.title) for item in catalog.load().values()]
        if find_form(form).extent == Extent.ALL:
            lacking = _find_lacking(agent, local)
            if lacking.answered:  # else it is not known, and not said
                fields.append(Column("lacking", "objects"))
                said = [[{"node": node, "reason": why} for node, why in whys.items()] for whys in lacking.of.values()]
                rows = [(*row, of) for row, of in zip(rows, said, strict=True)]
            write_table(make_output(form, fields, {}), rows)
            return
        if form == "columns" and sys.stdout.isatty() and _cells(rows) > terminal.columns():
            del fields[1]  # `--help` has it, and a title that is cut says nothing
            rows = [(row[0], row[2]) for row in rows]
        write_table(make_output(form, fields, {}), rows)
        sys.stdout.flush()  # what nodes say may take a while
        _tell_lacking(_find_lacking(agent, local), one=local)


class LackingByNode(NamedTuple):
    """How many agents have told what their kernels cannot run, and of each gadget why not, by node."""

    answered: int
    of: Mapping[str, Mapping[str, str]]


def _find_lacking(agent: tuple[str, ...], local: bool) -> LackingByNode:
    """What the kernels of nodes cannot run. Who does not answer is told; an error only if agents are named."""
    from gadget._generated import gadget_pb2 as pb
    from kubectl_gadget.agents.client import LONGEST_DETAILS, ask_all

    found: dict[str, Any] = {}
    try:
        with find_targets(agent, local) as targets:
            found = ask_all(targets(), "Lacking", pb.LackingRequest(), LOAD_SECONDS)
    except GadgetError as error:
        if agent or local:
            raise
        tell(f"not known: what nodes cannot run: {error}")
    of: dict[str, dict[str, str]] = {name: {} for name in catalog.load()}
    said = Counter(getattr(reply, "node", "") for reply in found.values())
    for target, reply in sorted(found.items()):
        if isinstance(reply, GadgetError):
            tell(f"not known: what {target} cannot run: {reply}")
            continue
        for each in reply.lacks:
            if each.gadget in of:
                why = each.reason[:LONGEST_DETAILS].removeprefix(f"{each.gadget}: ")
                why = why.removesuffix(f", which {each.gadget} needs")
                # one that calls itself as another node is, is what it was reached by
                has_own = reply.node == target or (said[reply.node] == 1 and reply.node not in found)
                of[each.gadget][reply.node if reply.node and has_own else target] = why
    answered = [reply for reply in found.values() if not isinstance(reply, GadgetError)]
    if found and not answered and (agent or local):
        raise Unreachable(f"{len(found)} of {len(found)} agents did not answer")
    return LackingByNode(len(answered), of)


def _tell_lacking(lacking: LackingByNode, *, one: bool) -> None:
    """A line for each gadget that nodes cannot run, and each reason; the nodes are named if others can."""
    for name, whys in lacking.of.items():
        for why in dict.fromkeys(whys.values()):
            nodes = [node for node, each in whys.items() if each == why]
            more = f" and {len(nodes) - MOST_NAMED} more" * (len(nodes) > MOST_NAMED)
            where = "this machine" if one else f"{', '.join(nodes[:MOST_NAMED])}{more}"
            if len(nodes) == lacking.answered > 1:
                where = f"any of {lacking.answered} nodes"
            tell(f"{catalog.find(name).command}: not on {where}: {why}")


def _cells(rows: Sequence[Row]) -> int:
    """The width of a table of texts if nothing is cut."""
    return sum(max(map(len, column)) for column in zip(*rows, strict=True)) + 2 * (len(rows[0]) - 1)


class StatusCommand(HeadedCommand):
    """`status`: each node's agent."""

    def __init__(self) -> None:
        """Make the command."""
        form, *_ = output_options()
        super().__init__(
            "status",
            "how each node's agent is: ready, what it does, what it lost",
            "kubectl gadget status",
            [*_where(), form],
            self._run,
        )

    def _run(self, local: bool, agent: tuple[str, ...], form: str) -> None:
        with find_targets(agent, local, also=SERVERS) as targets:
            started = local and not _runs_here()
            found = describe(targets())
        more = _more_services(found.values())
        wide = [] if find_form(form).extent == Extent.COLUMNS else WIDE
        fields = [*FIELDS, *(Column(name, "identity") for name in more), *wide]
        rows = []
        for target, reply in sorted(found.items()):
            row, texts = _row(target, reply), _texts(reply)
            after = row[len(FIELDS) :] if wide else ()
            rows.append((*row[: len(FIELDS)], *(texts.get(name, "") for name in more), *after))
        look = replace(LOOK, narrow=(*more, *LOOK.narrow))
        write_table(make_output(form, fields, {"btf": "BTF", "rate": "EVENTS/S"}, look), rows)
        sys.stdout.flush()
        if find_form(form).extent < Extent.ALL:
            _tell_problems(found)
            if started:
                tell("no agent runs on this machine: this one was started for this command, and has ended")
        _fail_without_agents(found, reasons=True)


def _runs_here() -> bool:
    """Whether an agent serves on this machine."""
    from kubectl_gadget.agents.local import running_agent

    return bool(running_agent())


class VersionCommand(HeadedCommand):
    """`version`: of this command line, the cluster, and each node's agent."""

    def __init__(self) -> None:
        """Make the command."""
        form, *_ = output_options()
        super().__init__(
            "version",
            "the versions of this command line, the cluster and the agents",
            "kubectl gadget version",
            [*_where(), form],
            self._run,
        )

    def _run(self, local: bool, agent: tuple[str, ...], form: str) -> None:
        from kubectl_gadget.agents.contract import understands

        show = _show_lines if find_form(form).extent < Extent.ALL else partial(_show_records, form)
        show([AboutPart("client", version=__version__)])
        if not (agent or local):
            show([_server()])
        with find_targets(agent, local, also=SERVERS) as targets:
            found = dict(sorted(describe(targets()).items()))
        show([_agent(target, reply) for target, reply in found.items()])
        for reply in found.values():
            if not isinstance(reply, GadgetError) and not understands(reply.contract):
                tell(f"warning: {reply.node}: {_too_far(reply.contract)}")
        _fail_without_agents(found)


@dataclass(frozen=True)
class AboutPart:
    """Something with a version: client, server or agent."""

    part: str
    node: str = ""
    version: str = ""
    kernel: str = ""
    problem: str = ""


def _server() -> AboutPart:
    """The cluster's API server. Unreachable if it does not answer."""
    from gadget.kube.api import api_server
    from gadget.kube.kubeconfig import read_context

    try:
        return AboutPart(
            "server", version=api_server(read_context(chosen_cluster().flags)).get("/version")["gitVersion"]
        )
    except Unreachable:
        raise
    except (GadgetError, KeyError) as error:  # it may refuse this, and still let us reach the agents
        return AboutPart("server", problem=str(error))


def _agent(target: str, reply: Any) -> AboutPart:
    if isinstance(reply, GadgetError):
        return AboutPart("agent", target, problem=str(reply))
    return AboutPart("agent", reply.node, reply.version, reply.kernel)


def _show_lines(parts: Sequence[AboutPart]) -> None:
    for part in parts:
        kernel = f", Linux {part.kernel}" if part.kernel else ""
        write_line(f"{part.node or part.part}  {part.problem or part.version}{kernel}")


def _show_records(form: str, parts: Sequence[AboutPart]) -> None:
    output = make_output(form, [Column(name, "identity") for name in AboutPart.__dataclass_fields__], {})
    write_table(output, [astuple(part) for part in parts])


def _too_far(contract: int) -> str:
    older = "agent" if contract < CONTRACT else "command line"
    return f"too far apart to understand each other: update the {older}"


def describe(targets: Targets) -> dict[str, Any]:
    """The DescribeReply of each agent, or the GadgetError that kept it from answering."""
    from gadget._generated import gadget_pb2 as pb
    from kubectl_gadget.agents.client import ask_all

    return ask_all(targets, "Describe", pb.DescribeRequest(), ANSWER_SECONDS)


def _state(reply: Any) -> str:
    from kubectl_gadget.agents.contract import understands

    if not understands(reply.contract):
        return _too_far(reply.contract)
    return "; ".join(reply.problems) or "ready"


def _texts(reply: Any) -> dict[str, str]:
    """What an agent says of each of its services."""
    if isinstance(reply, GadgetError):
        return {}
    older = {"traceloop": reply.traceloop, "flows": reply.flows}
    return {each.name: each.text for each in reply.services} or older


def _more_services(replies: Iterable[Any]) -> list[str]:
    """The services that agents say something about and that have no column of their own."""
    known = {column.name for column in (*FIELDS, *WIDE)}
    named = {name for reply in replies for name, text in _texts(reply).items() if text and _SERVICE.fullmatch(name)}
    return sorted(named - known)[:MORE_SERVICES]


def _tell_problems(found: dict[str, Any]) -> None:
    """What is wrong with services, but for what the state of their agents says already."""
    for _, reply in sorted(found.items()):
        for each in () if isinstance(reply, GadgetError) else reply.services[:MOST_SERVICES]:
            if each.problem and each.problem not in reply.problems:
                tell(f"warning: {reply.node}: {each.name}: {each.problem}")


def _row(target: str, reply: Any) -> tuple[Any, ...]:
    if isinstance(reply, GadgetError):
        return (target, "no agent", "", "", "", "", 0, 0, 0, 0.0, 0, 0, "", "", [], [])
    texts = _texts(reply)
    return (
        reply.node,
        _state(reply),
        reply.version,
        reply.kernel,
        "yes" if reply.btf else "no" if reply.cgroups else "",  # a receiver of audit events has none
        reply.cgroups,
        reply.containers,
        len(reply.runs),
        min(sum(run.events for run in reply.runs), MOST),
        sum(run.rate for run in reply.runs),
        min(sum(run.lost for run in reply.runs), MOST),
        reply.memory_bytes,
        texts.get("traceloop", ""),
        texts.get("flows", ""),
        [
            {"object": item.object, "name": item.name, "run_time_ns": item.run_time_ns, "runs": item.runs}
            for item in reply.programs
        ],
        [
            {
                "name": item.name,
                "text": item.text,
                "problem": item.problem,
                "losses": [{"reason": loss.reason, "count": loss.count} for loss in item.losses],
            }
            for item in reply.services
        ],
    )


def _fail_without_agents(found: dict[str, Any], *, reasons: bool = False) -> None:
    """An error if an agent did not answer; with reasons, each is told why first."""
    failed = [reply for reply in found.values() if isinstance(reply, GadgetError)]
    for reason in dict.fromkeys(map(str, failed)) if reasons else ():
        tell(reason)
    if failed:
        raise Unreachable(f"{len(failed)} of {len(found)} agents did not answer")
