"""What happens is judged in batches, and each event as if it were judged alone."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any

import numpy as np
import pytest

from agent.run.batch import Packed
from gadget.catalog import find
from gadget.rules import live, processes
from gadget.rules.alerts import Alert
from gadget.rules.checks import Event
from gadget.rules.containers import Unknown
from gadget.rules.live import Judge
from gadget.rules.processes import KnownProcess, Processes
from gadget.rules.ruleset import Ruleset
from tests.unit.rules.test_rules import loaded, rule

SCHEMA = find("detect").schema
CALLS = {word: int(number) for number, word in SCHEMA["call"].values.items()}
CONTAINER, HOST = 700, 1
SECOND = 1_000_000_000
EXEC = {"arguments": ("nginx",), "exe": "/usr/sbin/nginx", "cwd": "/srv", "vpid": 1, "ppid": 5, "parent_start": 50}


class Node:
    """What is known beside events: one container, its users, and processes that run already."""

    def __init__(self, *running: KnownProcess, container: Mapping[str, Any] | None = None) -> None:
        self._running = running
        self.now: dict[int, KnownProcess] = {}
        self._container = container or {"container.id": "0123456789ab", "container.image.repository": "shop/web"}

    def container(self, cgroup_id: int) -> Event | None:
        return self._container if cgroup_id == CONTAINER else None

    def user(self, cgroup_id: int, pid: int, uid: int) -> str | None:
        return {0: "root", 33: "www-data"}.get(uid, "<NA>")

    def group(self, cgroup_id: int, pid: int, gid: int) -> str | None:
        return self.user(cgroup_id, pid, gid)

    def domains(self, cgroup_id: int, address: bytes) -> tuple[str, ...]:
        return ("evil.example",) if address == bytes([198, 51, 100, 7]) else ()

    def process(self, pid: int) -> KnownProcess | None:
        return self.now.get(pid)

    def running(self) -> Iterable[KnownProcess]:
        return self._running


def packed(*events: Mapping[str, Any], width: int = 512) -> Packed:
    """Events as the programs pack them."""
    rows = np.zeros(len(events), SCHEMA.dtype(SCHEMA.text_offset + width))
    usual = {"cgroup_id": CONTAINER, "pid": 7, "tid": 7, "start": 70, "fd": -1, "loginuid": 0xFFFF_FFFF}
    for at, event in enumerate(events):
        texts = b""
        row = rows[at]
        for part in (
            row["exe"],
            row["cwd"],
            *(row[name][each] for name in ("path", "to") for each in ("directory", "path")),
        ):
            part["as_given"] = True  # none
        for name, value in {**usual, "comm": "nginx", "timestamp": at + 1, **event}.items():
            if name == "call":
                row[name] = CALLS[value.replace("_", " ")]
            elif name in ("src", "dst"):
                address = ip_address(value[0])
                mapped = bytes(10) + b"\xff\xff" if address.version == 4 else b""
                row[name]["address"] = mapped + address.packed
                row[name]["port"] = value[1]
            elif name in ("path", "to"):
                folder, passed = value if isinstance(value, tuple) else ("", value)
                texts += _slice(row[name]["path"], texts, passed, as_given=True)
                texts += _slice(row[name]["directory"], texts, folder, as_given=not folder)
            elif name in ("exe", "cwd"):
                texts += _slice(row[name], texts, value, as_given=False)
            elif name in ("arguments", "env", "data"):
                text = value if isinstance(value, bytes) else "".join(f"{each}\0" for each in value).encode()
                row[name]["offset"], row[name]["length"] = len(texts), len(text)
                texts += text
            elif name == "fd_type":
                row[name] = ord(value)
            else:
                row[name] = value
        row["text_length"] = len(texts)
        rows.view(np.uint8).reshape(len(events), -1)[at, SCHEMA.text_offset :][: len(texts)] = list(texts)
    return Packed(rows.itemsize, len(events), rows.tobytes())


def _slice(where: Any, before: bytes, path: str, *, as_given: bool) -> bytes:
    text = path.encode("utf-8", "surrogateescape")
    if not as_given:
        text = b"".join(part + b"/" for part in reversed(text.split(b"/")[1:]) if part)
    where["offset"], where["length"], where["as_given"] = len(before), len(text), as_given
    return text


def fired(conditions: str | Ruleset, *events: Mapping[str, Any], node: Node | None = None, **more: Any) -> list[Alert]:
    """The alerts of a rule with this condition, its output all that these tests look at."""
    rules = conditions if isinstance(conditions, Ruleset) else loaded(rule(f"'{conditions}'"))
    return Judge(rules, SCHEMA, node or Node(), **more).judge([packed(*events)], 0)


def value(field: str, *events: Mapping[str, Any], node: Node | None = None) -> Any:
    """What a field is at the last of some events."""
    text = rule("'evt.num > 0'", "  warn_evttypes: false\n").replace("output: ", f"output: o %{field} ", 1)
    alerts = Judge(loaded(text), SCHEMA, node or Node()).judge([packed(*events)], 0)
    return alerts[-1].fields[field]


def exec_of(name: str, *arguments: str, **more: Any) -> dict[str, Any]:
    return {**EXEC, "call": "execve", "comm": name, "exec_id": 2, "arguments": arguments or (name,), **more}


def test_shell_in_a_container() -> None:
    """A shell that a web server starts is an alert, with the command line and its ancestors."""
    events = (
        exec_of("nginx", "nginx", "-g", "daemon off"),
        {
            "call": "fork",
            "pid": 8,
            "tid": 8,
            "start": 80,
            "exec_id": 2,
            "ppid": 7,
            "parent_start": 70,
            "parent_exec_id": 2,
        },
        exec_of("sh", "sh", "-c", "id", pid=8, tid=8, start=80, exec_id=3, ppid=7, parent_start=70, tty=34816, vpid=9),
    )
    condition = "evt.type = execve and container.id != host and proc.name = sh and proc.pname = nginx and proc.tty != 0"
    (alert,) = fired(condition, *events)
    assert (alert.time_ns, alert.cgroup_id, alert.count, alert.incomplete) == (3, CONTAINER, 1, ())
    wanted = {
        "proc.cmdline": "sh -c id", "proc.pcmdline": "nginx -g daemon off", "proc.exepath": "/usr/sbin/nginx",
        "proc.cwd": "/srv/", "proc.vpid": 9, "proc.pvpid": 1, "proc.ppid": 7, "user.name": "root", "evt.res": "SUCCESS",
        "container.image.repository": "shop/web", "user.loginuid": -1, "evt.arg.flags": "0",
    }  # fmt: skip
    assert {field: value(field, *events) for field in wanted} == wanted


@pytest.mark.parametrize(
    ("event", "wanted"),
    [
        (
            {"call": "openat", "path": ("/var/www", "../log/./x"), "fd": 3, "result": 3, "fd_type": "f", "flags": 0o1101, "mode": 0o755},
            {
                "fd.name": "/var/log/x", "fd.nameraw": "../log/./x", "fd.directory": "/var/log", "fd.filename": "x",
                "fd.typechar": "f", "fd.type": "file", "fd.num": 3, "evt.is_open_write": True, "evt.is_open_read": False,
                "evt.is_open_exec": True, "evt.arg.name": "/var/log/x", "evt.arg.flags": "O_WRONLY|O_CREAT|O_TRUNC",
                "evt.rawres": 3, "evt.arg.target": None, "fd.sip": None,
            },
        ),
        (
            {"call": "open", "path": ("/", "/etc/shadow"), "result": -13, "fd_type": "o", "flags": 2},
            {
                "fd.name": "/etc/shadow", "fd.directory": "/etc", "fd.filename": None, "fd.num": -1, "evt.res": "EACCES",
                "evt.is_open_read": True, "evt.is_open_write": True, "evt.is_open_exec": False,
            },
        ),
        (
            {
                "call": "connect", "fd": 4, "result": -115, "fd_type": "4", "protocol": 6, "family": 2,
                "src": ("10.0.0.1", 40000), "dst": ("198.51.100.7", 443),
            },
            {
                "fd.name": "10.0.0.1:40000->198.51.100.7:443", "fd.sip": "198.51.100.7", "fd.cip": "10.0.0.1",
                "fd.rip": "198.51.100.7", "fd.lport": 40000, "fd.sport": 443, "fd.l4proto": "tcp", "fd.sockfamily": "ip",
                "fd.type": "ipv4", "evt.res": "EINPROGRESS", "fd.sip.name": "evil.example", "fd.is_server": False,
            },
        ),
        (
            {
                "call": "accept4", "fd": 5, "result": 5, "fd_type": "6", "protocol": 6, "family": 10,
                "src": ("2001:db8::1", 80), "dst": ("2001:db8::2", 50000),
            },
            {"fd.name": "2001:db8::2:50000->2001:db8::1:80", "fd.sip": "2001:db8::1", "fd.cport": 50000, "fd.is_server": True},
        ),
        (
            {"call": "symlinkat", "path": ("/tmp", "x"), "to": "/etc/shadow"},
            {"evt.arg.target": "/etc/shadow", "evt.arg.linkpath": "/tmp/x", "fd.name": None, "fd.num": None},
        ),
        ({"call": "rename", "path": ("/a", "b"), "to": ("/c", "d")}, {"evt.arg.oldpath": "/a/b", "evt.arg.newpath": "/c/d"}),
        ({"call": "fchmodat", "path": ("/a", "b"), "mode": 0o4711}, {"evt.arg.mode": "S_IXOTH|S_IXGRP|S_IXUSR|S_IWUSR|S_IRUSR|S_ISUID", "evt.arg.filename": "/a/b"}),
        ({"call": "ptrace", "args": [16, 99, 0, 0, 0, 0]}, {"evt.arg.request": "PTRACE_ATTACH", "evt.arg.pid": "99"}),
        ({"call": "bpf", "args": [5, 0, 0, 0, 0, 0], "result": 7}, {"evt.arg.cmd": "BPF_PROG_LOAD", "evt.arg.fd": "7", "fd.num": 7}),
        ({"call": "bpf", "args": [5, 0, 0, 0, 0, 0], "result": -22}, {"evt.arg.fd": "-22", "fd.num": -1, "evt.failed": True}),
        ({"call": "unshare", "args": [0x10020000, 0, 0, 0, 0, 0]}, {"evt.arg.flags": "CLONE_NEWNS|CLONE_NEWUSER"}),
        ({"call": "socket", "args": [17, 3, 0, 0, 0, 0], "result": 3, "fd": 3}, {"evt.arg.domain": "AF_PACKET", "fd.num": 3}),
        ({"call": "setuid", "args": [33, 0, 0, 0, 0, 0]}, {"evt.arg.uid": "www-data"}),
        (
            {"call": "dup2", "fd": 0, "result": 0, "fd_type": "4", "args": [4, 0, 0, 0, 0, 0], "dst": ("10.1.1.1", 4444)},
            {"fd.num": 0, "fd.rip": "10.1.1.1", "evt.arg.oldfd": "4", "evt.rawres": 0},
        ),
    ],
    ids=lambda case: case.get("call", ""),
)  # fmt: skip
def test_fields(event: dict[str, Any], wanted: dict[str, Any]) -> None:
    """A rule finds in a call what Falco's own engine finds there."""
    assert {field: value(field, exec_of("nginx"), event) for field in wanted} == wanted


def test_like_alone() -> None:
    """Events that are judged together have the alerts that each has alone."""
    choose = random.Random(3)
    conditions = [
        "evt.type in (open, openat) and evt.is_open_write = true and fd.name startswith /etc and proc.name = nginx",
        "evt.type = openat and not (user.uid = 0 or fd.name = /tmp/x) and fd.num > 3",
        "evt.type = connect and fd.sip = 198.51.100.7 and fd.sip.name = evil.example",
        "evt.type in (openat, connect) and evt.res != SUCCESS and proc.tty = 0",
    ]
    rules = loaded("".join(rule(f"'{each}'", "", f"r{at}") for at, each in enumerate(conditions)))
    some = [
        {
            "call": choose.choice(["open", "openat", "connect"]), "fd": choose.randint(3, 5), "fd_type": choose.choice("f4"),
            "result": choose.choice([3, -2]), "flags": choose.choice([0, 1]), "euid": choose.choice([0, 33]),
            "path": ("/", choose.choice(["etc/passwd", "tmp/x"])), "dst": (choose.choice(["198.51.100.7", "10.0.0.1"]), 80),
            "tty": choose.choice([0, 1]),
        }
        for _ in range(3_000)
    ]  # fmt: skip
    together = Judge(rules, SCHEMA, Node())
    one_by_one = Judge(rules, SCHEMA, Node())
    counts = dict[str, int]()
    for event in some:
        for alert in one_by_one.judge([packed(event)], 0):
            counts[alert.rule.name] = counts.get(alert.rule.name, 0) + alert.count
    found = dict[str, int]()
    for alert in together.judge([packed(*some[:1_500]), packed(*some[1_500:], width=900)], 0):
        found[alert.rule.name] = found.get(alert.rule.name, 0) + alert.count
    assert found == counts
    assert len(counts) == len(conditions)
    assert together.judged == one_by_one.judged == 3_000


def test_host() -> None:
    """Processes of the host are no alerts unless they are asked for, and a container's process knows them as ancestors."""
    shim = exec_of("runc", cgroup_id=HOST, pid=5, tid=5, start=50)
    inside = exec_of("sh", parent_exec_id=2)
    assert [alert.cgroup_id for alert in fired("evt.type = execve", shim, inside)] == [CONTAINER]
    assert len(fired("evt.type = execve and proc.pname = runc", shim, inside)) == 1
    assert [each.fields["container.id"] for each in fired(loaded(rule("evt.type = execve").replace("output: ", "output: o %container.id ")), shim, inside, host=True)] == ["host", "0123456789ab"]  # fmt: skip


def test_order() -> None:
    """An exec in one ring comes before the opens in the other that happened after it."""
    judge = Judge(loaded(rule("evt.type = openat and proc.name = sh")), SCHEMA, Node())
    opened = {"call": "openat", "timestamp": 20, "exec_id": 3, "fd_type": "f", "path": "/x"}
    (alert,) = judge.judge([packed(opened), packed(exec_of("sh", exec_id=3, timestamp=10), width=900)], 0)
    assert alert.incomplete == ()


def test_change() -> None:
    """The working directory of a process is the one that it changed to."""
    judge = Judge(loaded(rule("evt.type = openat and proc.cwd = /tmp/")), SCHEMA, Node())
    opened = {"call": "openat", "exec_id": 2, "fd_type": "f", "path": "/x"}
    assert judge.judge([packed(exec_of("sh"), opened)], 0) == []
    assert len(judge.judge([packed({"call": "change", "exec_id": 2, "cwd": "/tmp"}), packed(opened)], 0)) == 1


def test_ran_before() -> None:
    """A process that ran before the agent came is known by what /proc tells of it."""
    before = KnownProcess(processes.Key(7, 0, 0), "java", arguments=("java", "-jar", "x.jar"))
    (alert,) = fired(
        "evt.type = openat and proc.args contains jar", {"call": "openat", "path": "/x"}, node=Node(before)
    )
    assert alert.incomplete == ()


def test_ended_before_the_first_batch() -> None:
    """Who began before the agent came is a known ancestor, also if it ends before anything is judged."""
    condition = "evt.type = execve and proc.name = sh and not proc.aname = dpkg"
    node = Node(KnownProcess(processes.Key(5, 0, 0), "dpkg", arguments=("dpkg",)))
    judge = Judge(loaded(rule(f"'{condition}'")), SCHEMA, node)
    judge.begin()
    node._running = ()
    assert judge.judge([packed(exec_of("sh"))], 0) == []


def test_unknown() -> None:
    """An alert whose process is not known says which fields nobody knew."""
    (alert,) = fired("evt.type = openat and not proc.args contains jar", {"call": "openat", "path": "/x"})
    assert alert.incomplete == ("proc.args",)
    nameless = Node(container={"container.id": "0123456789ab"})
    condition = "evt.type = execve and not container.image.repository in (shop/web)"
    (alert,) = fired(condition, exec_of("sh"), node=nameless)
    assert alert.incomplete == ("container.image.repository",)


BUILT = "evt.type = execve and proc.name = sh and not proc.container.aname = make and not proc.container.aexepath endswith /make"


@pytest.mark.parametrize(
    ("above", "first", "fires"),
    [
        (40, 1, True),  # make on the node started or entered the container
        (1, 2, False),
        (2, 7, False),  # what somebody's exec began
        (40, 41, False),  # no pid namespace of its own: nothing tells the node's processes apart
    ],
)
def test_what_is_above_a_container_decides_nothing(above: int, first: int, fires: bool) -> None:
    """A build on the node that starts a container hides nothing in it; one in the container does what a build does."""
    make = {
        **EXEC,
        "call": "execve",
        "pid": 40,
        "tid": 40,
        "start": 40,
        "ppid": 0,
        "vpid": above,
        "comm": "make",
        "exe": "/usr/bin/make",
    }
    begun = {
        **EXEC,
        "call": "execve",
        "pid": 41,
        "tid": 41,
        "start": 41,
        "ppid": 40,
        "parent_start": 40,
        "vpid": first,
        "comm": "app",
    }
    shell = exec_of("sh", pid=42, tid=42, start=42, ppid=41, parent_start=41, vpid=42 if first == 41 else 9)
    alerts = fired(BUILT, make, begun, shell)
    assert len(alerts) == fires
    assert not any(alert.incomplete for alert in alerts)


def test_unknown_parent_is_told() -> None:
    """An alert of a process whose parent is not known, as its exec was lost, says which fields nobody knew."""
    condition = (
        "evt.type = execve and proc.name = sh and not proc.pname = nginx and not proc.aname = sshd "
        "and not proc.aname[2] = sshd and not proc.args[3] = x and proc.ppid = 5"
    )
    (alert,) = fired(condition, exec_of("sh"))
    assert alert.incomplete == ("proc.aname", "proc.pname")
    first = {**EXEC, "call": "execve", "pid": 5, "tid": 5, "start": 50, "ppid": 0, "comm": "runc", "exec_id": 1}
    (alert,) = fired(condition, first, exec_of("sh", parent_exec_id=1))
    assert alert.incomplete == ()


@pytest.mark.parametrize(
    ("container", "incomplete"),
    [
        (Unknown(), ("container.name", "k8s.ns.name", "k8s.pod.label")),
        ({"container.id": "0123", "k8s.pod.uid": "u", "k8s.pod.labels": ""}, ("container.name", "k8s.ns.name")),
        ({"container.id": "0123", "k8s.pod.uid": "u", "container.name": "c", "k8s.pod.name": "p", "k8s.ns.name": "n"}, ("k8s.pod.label",)),
        ({"container.id": "0123", "container.name": "c"}, ()),  # of no pod
    ],
)  # fmt: skip
def test_nameless(container: Any, incomplete: tuple[str, ...]) -> None:
    """An alert of a container whose names or labels nobody knew says so; one that has none lacks nothing."""
    condition = "evt.type = execve and not k8s.ns.name = kube-system and not k8s.pod.label[app] = web and not container.name = x"
    (alert,) = fired(condition, exec_of("sh"), node=Node(container=container))
    assert alert.incomplete == incomplete


def test_labels_that_come_later() -> None:
    """A process that began before the labels of its pod were known is judged by them as soon as they are."""
    container: dict[str, Any] = {"container.id": "0123456789ab"}
    judge = Judge(loaded(rule("evt.type = openat and k8s.pod.label[app] = web")), SCHEMA, Node(container=container))
    opened = {"call": "openat", "path": "/x"}
    assert judge.judge([packed(opened)], 0) == []
    container["k8s.pod.label[app]"] = "web"
    judge.containers_changed()
    assert len(judge.judge([packed(opened)], 0)) == 1


def test_whose() -> None:
    """An alert of Falco's rules says whose container it was, as Falco adds it; one that says it itself stays as it is."""
    (alert,) = fired("evt.type = execve", exec_of("sh"))
    assert alert.fields["container.id"] and alert.fields["container.image.repository"] == "shop/web"
    assert {"k8s.pod.name", "k8s.ns.name", "container.name", "container.image.tag"} <= alert.fields.keys()
    assert " container_id=" in alert.text and " container_image_repository=shop/web " in alert.text
    own = loaded(rule("evt.type = execve").replace("output: ", "output: pod=%k8s.pod.name "))
    (alert,) = fired(own, exec_of("sh"))
    assert "container.id" not in alert.fields and "container_id=" not in alert.text


def test_secrets_of_the_node() -> None:
    """The ancestry of an alert tells of the node's processes what they are, and not the arguments of their programs."""
    shim = exec_of("shim", "shim", "--token=x", pid=5, tid=5, start=50, vpid=5, cgroup_id=HOST, ppid=0)
    first = exec_of("nginx", "nginx", "-g", vpid=1, parent_exec_id=2)
    shell = exec_of("sh", "sh", "-c", pid=8, tid=8, start=80, vpid=9, ppid=7, parent_start=70, parent_exec_id=2)
    (alert,) = fired("evt.type = execve and proc.name = sh", shim, first, shell)
    assert [each.command for each in alert.ancestry] == ["sh -c", "nginx -g", ""]
    assert [each.name for each in alert.ancestry] == ["sh", "nginx", "shim"]


def test_unknown_parent() -> None:
    """A parent that nobody knows is missing, not one without a name."""
    assert value("proc.pname", exec_of("sh")) is None
    assert fired("evt.type = execve and not proc.pname exists and not proc.aname exists", exec_of("sh"))


def test_repeated() -> None:
    """What happens again and again is one alert with a count, and no count is lost however much differs."""
    opened = {"call": "openat", "fd_type": "f", "path": "/etc/shadow"}
    (alert,) = fired("evt.type = openat", *[opened] * 100)
    assert alert.count == 100
    alerts = fired("evt.type = openat", *({**opened, "path": f"/etc/{at}"} for at in range(1_000)))
    assert len(alerts) == live.MOST_ALERTS
    assert sum(alert.count for alert in alerts) == 1_000


def test_repeated_beside_others() -> None:
    """A container that fires a rule without end takes no alert from another one."""
    node = Node()
    node.container = lambda cgroup_id: node._container  # type: ignore[method-assign]
    flood = [{"call": "openat", "fd_type": "f", "path": f"/etc/{at}"} for at in range(1_000)]
    alerts = fired("evt.type = openat", *flood, {**flood[0], "cgroup_id": 800}, node=node)
    assert [(each.cgroup_id, each.count) for each in alerts[-2:]] == [(CONTAINER, 745), (800, 1)]


def test_exec_right_behind() -> None:
    """A process that opens a file and becomes a harmless program at once is told of under the name that it had."""
    node = Node()
    node.now[7] = KnownProcess(processes.Key(7, 0, 0), "su", arguments=("su",))
    steps = [exec_of("evil"), {"call": "openat", "exec_id": 2, "path": "/etc/shadow"}, exec_of("su", exec_id=3)]
    events = [{**each, "timestamp": 100 * SECOND + at} for at, each in enumerate(steps)]
    judge = Judge(loaded(rule("evt.type = openat and proc.name = evil")), SCHEMA, node)
    assert len(judge.judge([packed(*events)], 0)) == 1
    late = {**steps[1], "euid": 33, "comm": "thread", "timestamp": 200 * SECOND}  # evil is forgotten, and /proc has su
    judge.use(loaded(rule("evt.type = openat and proc.name = thread")))
    assert len(judge.judge([packed(exec_of("x", pid=9, start=90, timestamp=199 * SECOND), late)], 0)) == 1
    assert judge.processes.running(7, 70).name == "su"  # type: ignore[union-attr]


def test_program_that_was_not_seen() -> None:
    """A process whose exec was lost has not the name that it had when the agent came."""
    node = Node(KnownProcess(processes.Key(7, 0, 0), "su", arguments=("su",)))
    node.now[7] = KnownProcess(processes.Key(7, 0, 0), "evil", arguments=("evil",))
    judge = Judge(loaded(rule("evt.type = openat and proc.name = evil")), SCHEMA, node)
    opened = {"call": "openat", "path": "/etc/shadow"}
    assert judge.judge([packed(exec_of("nginx"), {**opened, "exec_id": 2})], 0) == []
    assert len(judge.judge([packed({**opened, "exec_id": 3})], 0)) == 1


def test_child_of_the_parent() -> None:
    """A process that is made a child of its maker's parent runs the maker's program, and not the parent's."""
    shim = exec_of("runc", cgroup_id=HOST, pid=5, tid=5, start=50)
    forked = {"call": "fork", "pid": 8, "tid": 8, "start": 80, "exec_id": 2, "ppid": 5, "parent_start": 50}
    opened = {"call": "openat", "pid": 8, "tid": 8, "start": 80, "exec_id": 2, "path": "/etc/shadow"}
    events = (shim, exec_of("evil"), {**forked, "forker": 7, "forker_start": 70}, opened)
    assert len(fired("evt.type = openat and proc.name = evil and proc.pname = runc", *events)) == 1


def test_other_rules() -> None:
    """Other rules take over in the midst, and what was known of processes stays."""
    judge = Judge(loaded(rule("evt.type = execve")), SCHEMA, Node())
    assert judge.parameters["calls"] == "execve"
    assert len(judge.judge([packed(exec_of("sh"))], 0)) == 1
    judge.use(loaded(rule("evt.type = init_module and proc.name = sh")))
    assert judge.parameters["calls"] == "init module"
    assert len(judge.judge([packed({"call": "init_module", "exec_id": 2})], 0)) == 1


def _forks(number: int) -> Iterator[dict[str, Any]]:
    for at in range(number):
        pid = at + 10
        yield {"call": "fork", "pid": pid, "tid": pid, "start": pid, "ppid": pid - 1, "parent_start": pid - 1}
        yield {"call": "procexit", "pid": pid - 1, "tid": pid - 1, "start": pid - 1}


def test_bounds() -> None:
    """A container that forks without end takes no more than its share of memory."""
    judge = Judge(loaded(rule("evt.type = execve")), SCHEMA, Node())
    judge.processes = Processes(Node().process, most=50)
    judge.judge([packed(*_forks(500))], 0)
    assert len(judge.processes) <= 50
    assert max(len(each.ancestors) for each in judge.processes._known.values()) == processes.ANCESTORS
    quick = Judge(loaded(rule("evt.type = openat")), SCHEMA, Node(), most_rows=10)
    for at in range(30):
        assert len(quick.judge([packed({"call": "openat", "path": f"/{at}"})], 0)) == 1
    assert all(len(table.rows) <= 11 for table in quick._tables)


def test_ends_twice() -> None:
    """Threads that end together, each as the last one of its process, take no more memory either."""
    judge = Judge(loaded(rule("evt.type = execve")), SCHEMA, Node())
    judge.processes = Processes(Node().process, most=50)
    judge.judge([packed(*(each for each in _forks(500) for _ in range(1 + (each["call"] == "procexit"))))], 0)
    assert len(judge.processes) <= 50


def test_bytes() -> None:
    """Command lines, folders and paths as long as they may be take no more memory than short ones."""
    judge = Judge(loaded(rule("evt.type = openat and proc.name = nginx")), SCHEMA, Node(), most_bytes=1 << 20)
    judge.processes = Processes(Node().process, most_bytes=1 << 20)
    for at in range(100):
        path = f"/{at}{'x' * 4000}"
        begun = exec_of("nginx", exec_id=at, arguments=b"\xff\0" * 2000)
        moved = {"call": "change", "exec_id": at, "cwd": path}
        assert (
            len(judge.judge([packed(begun, moved, {"call": "openat", "exec_id": at, "path": path}, width=8192)], 0))
            == 1
        )
        assert sum(table.size for table in judge._tables) < 2 << 20
        assert judge.processes.size == sum(each.size for each in judge.processes._known.values()) < 2 << 20


def test_flood_of_changes() -> None:
    """A process that changes its folder a million times a second costs a look at each batch, and its last folder counts."""
    looked: list[KnownProcess] = []

    class Counted(Processes):
        def weigh(self, process: KnownProcess) -> None:
            looked.append(process)
            super().weigh(process)

    judge = Judge(loaded(rule("'evt.type = openat and proc.cwd = /tmp/999/'")), SCHEMA, Node())
    judge.processes = Counted(lambda pid: None)
    relations = {"vpid": 1, "ppid": 5, "parent_start": 50, "exec_id": 2}
    changes = [{"call": "change", "cwd": f"/tmp/{at}", **relations} for at in range(1_000)]
    opens = [{"call": "openat", "fd": 3, "path": "/etc/hosts", "exec_id": 2, "timestamp": 5_000}]
    beside = [{**changes[3], "pid": 8, "tid": 8, "start": 80}, {**changes[5], "exec_id": 1}]
    alerts = judge.judge([packed(exec_of("sh"), *changes[:500], *beside, *changes[500:], *opens)], 0)
    assert len(alerts) == 1 and len(looked) == 3
