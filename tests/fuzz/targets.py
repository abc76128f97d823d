"""What is fuzzed: for each parser a function of any bytes that raises only where the parser is wrong, and valid input.

tests/unit/test_damaged.py tries each with hypothesis, `make fuzz` with atheris for as long as wanted.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from google.protobuf.message import DecodeError

import hatch_build
from agent.containers import identity
from agent.containers.runtimes import Runtimes
from agent.traceloop import rings
from agent.traceloop.redact import Redactor
from agent.traceloop.wipe import wipe
from gadget import catalog, filters, parameters
from gadget._generated import gadget_pb2 as pb
from gadget.btf import Btf, BtfError
from gadget.errors import GadgetError, Unreachable, UsageError
from gadget.kube import credentials, kubeconfig
from gadget.kube.api import make_tls
from gadget.kube.proxy import find_proxy
from gadget.pod_choice import ChosenPods, PodChoice
from gadget.rules.ruleset import load as load_rules
from gadget.schema import IDENTITY, read_parameters, read_records, read_source
from gadget.selector import parse_labels, parse_names
from kubectl_gadget.stream import recording
from kubectl_gadget.stream.request import make_request
from kubectl_gadget.stream.session import replay
from kubectl_gadget.stream.streams import Ended
from kubectl_gadget.traceloop.calls import ReplyReader
from kubectl_gadget.traceloop.show import View, make_output
from tests.fuzz import answers, requests, state
from tests.fuzz.files import CONTAINER_ID, FOLDER, file_of
from tests.pods import annotations
from tests.unit.rows import batch, table
from tests.unit.traceloop import replies
from tests.unit.traceloop.replies import further, record

EXECS = catalog.find("execsnoop")


@dataclass(frozen=True)
class Target:
    """A parser: try_it raises only if it is wrong; seed makes valid input."""

    try_it: Callable[[bytes], None]
    seed: Callable[[], bytes]


def _section() -> bytes:
    from elftools.elf.elffile import ELFFile

    with (Path(hatch_build.OBJECTS) / "x86_64" / "execsnoop.bpf.o").open("rb") as file:
        data: bytes = ELFFile(file).get_section_by_name(".BTF").data()
        return data


def btf(data: bytes) -> None:
    """The BTF of an object."""
    with contextlib.suppress(BtfError):
        types = Btf(data)
        for number in range(len(types.types)):
            types.size(number)
        read_records(types)
        read_parameters(types, b"")
        read_source(types)


def filter_(data: bytes) -> None:
    """What follows --filter."""
    with contextlib.suppress(UsageError):
        filters.parse(data.decode(errors="replace"), EXECS.schema, IDENTITY)(table())


def rules(data: bytes) -> None:
    """A rule file, and an event for what it defines."""
    with contextlib.suppress(UsageError):
        for rule in load_rules([("rules.yaml", data.decode(errors="replace"))]).rules:
            rule.test({"evt.type": "execve", "proc.name": "sh"})
            rule.output.text({"proc.name": "sh"})


def _rule_file() -> bytes:
    return b"""
- list: shells
  items: [sh, "b sh"]
- macro: shell
  condition: proc.name in (shells) or tolower(proc.args) glob "a*[b]"
- rule: a
  desc: d
  condition: evt.type in (execve, execveat) and not shell and proc.aname[2] exists
  output: got %10proc.name from %tolower(proc.pname) and %fd.sip
  priority: WARNING
  exceptions: [{name: x, fields: [proc.name, fd.name], comps: [=, startswith], values: [[a, /b]]}]
- rule: a
  condition: and fd.num > 3
  override: {condition: append}
"""


def selector(data: bytes) -> None:
    """What follows -l and -n."""
    text = data.decode(errors="replace")
    with contextlib.suppress(UsageError):
        parse_names(text.split(","))
        ChosenPods([PodChoice(text)]).matches("shop", "cart-0", None)
        for requirement in parse_labels(text):
            requirement.matches({"app": "cart"})


def parameter(data: bytes) -> None:
    """A gadget's setting."""
    text = data.decode(errors="replace")
    for each in EXECS.parameters:
        with contextlib.suppress(UsageError):
            assert len(parameters.encode(each, text)) == each.size


def config(data: bytes) -> None:
    """A runtime's config.json."""
    place = identity.parse_path(f"/kubepods/besteffort/pod{'0' * 8}-{'0' * 27}/{CONTAINER_ID}")
    assert place
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        path = Path(folder) / f"run/containerd/io.containerd.runtime.v2.task/k8s.io/{CONTAINER_ID}/config.json"
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        found = Runtimes(Path(folder)).identify(place)
    assert all(isinstance(name, str) for name in (found.namespace, found.pod, found.name))
    pb.Container(namespace=found.namespace, pod=found.pod, container=found.name)


def recorded(data: bytes) -> None:
    """A file by --record."""
    with file_of(data) as path, contextlib.redirect_stderr(io.StringIO()) as told, answers.safe_output():
        with contextlib.suppress(GadgetError):
            file = recording.Recording(path)
            replay(file, make_request(EXECS, {}, "json", "", (), ""))
        with contextlib.suppress(GadgetError):
            replay(recording.Recording(path), make_request(EXECS, {}, "columns", "", ("pid>0",), ""))
    assert told.getvalue().replace("\n", "").isprintable()


def ring(data: bytes) -> None:
    """A ring of the flight recorder that was saved to disk."""
    with file_of(data) as path:
        try:
            found = rings.Ring(path, saved=True)
        except ValueError:
            return
        found.state(), found.span()
        snapshot = found.snapshot().whole()
        wipe(found.about, snapshot)
        Redactor(("pass",))(snapshot)


def reply(data: bytes) -> None:
    """What an agent answers about a recording: one that was saved may be damaged in any way."""
    try:
        given = pb.TraceloopReadReply.FromString(data)
    except DecodeError:
        return
    for view in (View(form="json"), View(durations=True, since=1.0)):
        output = make_output(view)
        with contextlib.suppress(GadgetError), answers.safe_output():
            output.entries(ReplyReader().entries(given))


def cluster(data: bytes) -> None:
    """A kubeconfig, up to the first byte that would be sent."""
    with file_of(data) as path, contextlib.suppress(GadgetError):
        kubeconfig.read_context.cache_clear()
        context = kubeconfig.read_context(kubeconfig.ClusterFlags(kubeconfig=str(path)))
        if plugin := context.user.pop("exec", None):  # not run, as any command may be there by now
            command, environment = credentials.plugin_call(plugin, context, interactive=False)
            assert all(isinstance(text, str) for text in (*command, *environment, *environment.values()))
        found = credentials.get_credentials(context)
        assert all(isinstance(text, str) for header in found.headers for text in header)
        find_proxy(context.cluster["server"], context.cluster.get("proxy-url") or "")
        make_tls(context, found)


def login(data: bytes) -> None:
    """What a log-in plugin prints."""
    with contextlib.suppress(ValueError):
        expires = credentials.read_status(data).expiration_timestamp
        assert expires is None or expires.tzinfo


def _recording() -> bytes:
    schema = orjson.dumps(EXECS.schema.to_json()).decode()
    names = [pb.Container(cgroup_id=9, namespace="shop", pod="cart-0", container="app", id="c" * 64)]
    losses = [pb.Loss(reason="ring full", cgroup_id=9, count=3)]
    replies = [
        pb.RunReply(node="node-a", started=pb.Started(schema=schema, containers=names, contract=1)),
        pb.RunReply(node="node-a", batch=batch()),
        pb.RunReply(node="node-a", summary=pb.Summary(events=3, losses=losses)),
    ]
    with tempfile.NamedTemporaryFile(dir=FOLDER) as file:
        with recording.Writer(Path(file.name), "execsnoop") as writer:
            ended = Ended("node-a", Unreachable("node-a: the agent went away"), 1)
            list(writer.keep([*(("node-a", reply) for reply in replies), ("node-a", ended)]))
        return Path(file.name).read_bytes()


def _ring() -> bytes:
    container = identity.Container(CONTAINER_ID, "containerd", "shop", "cart-0", "app", pod_uid="0")
    about = rings.About(container, 7, 1, "x86_64", rings.own_layout(), 1)
    state = np.zeros(1, catalog.record("traceloop", "state"))
    state["head"] = state["calls"] = 3
    call, more = (np.zeros(1, catalog.record("traceloop", name)) for name in ("call", "more"))
    call["sequence"], call["time"], call["length"], call["shape"] = 1 << 2, 5, 8, 2 << 4
    more["sequence"], more["owner"], more["length"] = 2 << 2 | rings.MORE, 1 << 2, 24
    slots = call.tobytes() + more.tobytes() + bytes(rings.SLOT_BYTES * 3)
    return about.to_json().ljust(rings.ABOUT_BYTES, b"\0") + state.tobytes() + slots


def _reply() -> bytes:
    calls = [record(1, name="access", text=b"/" + b"p" * 46), record(4, name="execve", text=b"x", result=-2),
             record(7, "KIND_EXEC", "execve", b"/bin/sh"), record(9, "KIND_SIGNAL", args=[11, 1, 16]),
             record(10, name="writev", text=b"xy", args=[1, 2, 2], size=3000, buffers=2),
             record(12, "KIND_PROCESS_EXIT", result=11)]  # fmt: skip
    more = (further(1, 0, 0, b"q"), further(4, 1, 1 << 4, b"arg"), further(7, 1, 0, b"sh\0-c\0"))
    return replies.reply(*calls, more=more).SerializeToString()


KUBECONFIG = b"""current-context: home
clusters: [{name: home, cluster: {server: "https://home:6443", tls-server-name: x, proxy-url: "http://me:p@proxy:1"}}]
users: [{name: me, user: {token: secret, as: a, as-groups: [b], as-user-extra: {c: [d]}, exec: {apiVersion: v1,
 command: login, args: [-v], env: [{name: A, value: b}], provideClusterInfo: true}}}]
contexts: [{name: home, context: {cluster: home, user: me, namespace: shop}}]
"""

TARGETS = {
    "btf": Target(btf, _section),
    "schema": Target(answers.schema, lambda: orjson.dumps(EXECS.schema.to_json())),
    "filter": Target(filter_, lambda: b'pid>1,comm==sh,args~"a b"'),
    "rules": Target(rules, _rule_file),
    "selector": Target(selector, lambda: b"app in (cart, web),tier!=db,!old"),
    "parameter": Target(parameter, lambda: b"0x10"),
    "config": Target(config, lambda: orjson.dumps({"annotations": annotations("shop", "cart-0", "app"), "Name": "x"})),
    "recording": Target(recorded, _recording),
    "ring": Target(ring, _ring),
    "reply": Target(reply, _reply),
    "kubeconfig": Target(cluster, lambda: KUBECONFIG),
    "login": Target(login, lambda: b'{"status": {"token": "a", "expirationTimestamp": "2026-01-01T00:00:00Z"}}'),
    "docker": Target(state.docker, lambda: orjson.dumps({"ID": CONTAINER_ID, "Name": "/cart"})),
    "podman": Target(state.podman, lambda: orjson.dumps([{"id": CONTAINER_ID, "names": ["cart"]}])),
    "pods": Target(state.pods, state.some_pods),
    "flows": Target(state.flows, state.some_flows),
    "catalogue": Target(state.catalogue, state.some_catalogue),
    "batch": Target(answers.batch, answers.some_batch),
    "layout": Target(answers.layout, answers.some_layout),
    "answer": Target(answers.answer, answers.some_answer),
    "text": Target(answers.text, lambda: "a\x9b31m\u202e\x7f\x1b[2J Grüße".encode()),
    "request": Target(requests.request, requests.some_request),
}
