"""A baseline says what containers were seen to do, and its rules fire on all else."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from gadget.rules import baseline, seen
from gadget.rules.alerts import Alert
from gadget.rules.baseline import BaselineSubject, Learnt
from gadget.rules.learner import MOST_CONTAINERS, Learner
from gadget.rules.live import Judge
from gadget.rules.problems import RulesError
from gadget.rules.ruleset import load
from gadget.rules.seen import FILES, KINDS, MOST, PEERS, PORTS, PROGRAMS, Paths, Seen
from tests.unit.rules.test_live import SCHEMA, Node, exec_of, packed

Events = Iterable[Mapping[str, Any]]
ID, WHO = "0123456789ab", BaselineSubject("shop", "Deployment/web", "web", "")
POD = {
    "container.id": ID, "container.name": "web", "k8s.ns.name": "shop", "k8s.pod.name": "web-6c9f7d8b9c-x2x4z",
    "container.image.repository": "shop/web",
}  # fmt: skip
TCP: dict[str, Any] = {"fd_type": "4", "protocol": 6, "family": 2}
UDP: dict[str, Any] = {**TCP, "protocol": 17}


def written(path: str, **more: Any) -> dict[str, Any]:
    return {"call": "openat", "path": path, "fd": 3, "result": 3, "fd_type": "f", "flags": 1, "exec_id": 2, **more}


def connect(address: str, port: int = 443, **more: Any) -> dict[str, Any]:
    return {"call": "connect", "fd": 4, "dst": (address, port), "exec_id": 2, **TCP, **more}


def listen(port: int, **more: Any) -> dict[str, Any]:
    return {"call": "listen", "fd": 5, "src": ("0.0.0.0", port), "exec_id": 2, **TCP, **more}


USUAL = (
    exec_of("nginx"),
    exec_of("sh", exe="/bin/sh", pid=9, tid=9, start=90),
    written("/var/log/a b"),
    {"call": "rename", "path": "/tmp/x", "to": "/data/now", "exec_id": 2},
    written("/proc/7/task/8/comm"),
    connect("10.0.0.1"),
    connect("198.51.100.7"),
    connect("2001:db8::1", fd_type="6"),
    listen(80),
    {**listen(53, **UDP), "call": "bind"},
    {**connect("10.9.9.9", 40_000, **UDP), "call": "sendto", "src": ("10.0.0.2", 53)},
)


def learn(*events: Mapping[str, Any]) -> Learnt:
    made = Learner(SCHEMA, Node(container=POD))
    made.learn([packed(*events)], 0)
    new = made.collect(whole=True).get(ID, {})
    return Learnt({kind: sorted(new.get(kind, [])) for kind in KINDS}, made.more(ID))


def judged(
    learnt: Learnt, *events: Mapping[str, Any], who: BaselineSubject = WHO, node: Node | None = None
) -> list[Alert]:
    rules = load([("baseline", baseline.rules({who: learnt}))])
    assert not rules.warnings
    return Judge(rules, SCHEMA, node or Node(container=POD)).judge([packed(*events)], 0)


def kinds(alerts: Iterable[Alert]) -> list[str]:
    return [next(tag for tag in alert.rule.tags if tag in KINDS) for alert in alerts]


def test_learnt() -> None:
    """What a container runs, writes, listens at and connects to is learnt, each once; domains instead of addresses."""
    assert learn(*USUAL, *USUAL).values == {
        PROGRAMS: ["/bin/sh", "/usr/sbin/nginx"],
        FILES: ["/data/now", "/proc/*/task/*/comm", "/var/log/a b"],
        PORTS: ["tcp/80", "udp/53"],
        PEERS: ["10.0.0.1", "2001:db8::1", "evil.example"],
    }


def test_not_learnt() -> None:
    """What fails, is only read, or is a device is no writing, and the runtime's own work is not the container's."""
    runtime = exec_of("runc:[2:INIT]", exe="/memfd:runc_cloned:/proc/self/exe", pid=8, tid=8, start=80)
    own = {"pid": 8, "tid": 8, "start": 80, "comm": "runc:[2:INIT]"}
    events = (written("/a", flags=0), written("/a", result=-13, fd=-1), written("/dev/null"), written("/dev/pts/0"))
    assert learn(exec_of("nginx"), *events).values[FILES] == []
    assert learn(runtime, written("/a", **own)).values[FILES] == []
    spoofed = exec_of("runc:[2:INIT]", pid=8, tid=8, start=80)
    assert learn(spoofed, written("/a", **own)).values[FILES] == ["/a"]


def test_the_same_is_silent() -> None:
    """What is in a baseline fires nothing, also after it was written to a file and read again."""
    learnt = learn(*USUAL)
    assert judged(learnt, *USUAL) == []
    again = baseline.read(baseline.write({WHO: learnt}), "f")[WHO]
    assert judged(again, *USUAL) == []


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (exec_of("nice", exe="/tmp/nice", exec_id=3), PROGRAMS),
        (written("/var/log/b"), FILES),
        (written("/var/log/a b/c"), FILES),
        ({"call": "rename", "path": "/tmp/x", "to": "/bin/ls", "exec_id": 2}, FILES),
        (listen(81), PORTS),
        (listen(53), PORTS),
        ({**listen(80, **UDP), "call": "bind"}, PORTS),
        (listen(80, protocol=132), PORTS),
        (connect("10.0.0.2"), PEERS),
        ({**connect("10.0.0.2", **UDP), "call": "sendmsg"}, PEERS),
    ],
)
def test_drift(event: dict[str, Any], kind: str) -> None:
    """What is not in a baseline is one alert of its kind."""
    assert kinds(judged(learn(*USUAL), exec_of("nginx"), event, event)) == [kind]


def test_runtime_begins() -> None:
    """What runc begins in a container before its program is no drift; a program that is called like it is."""
    runc = {"pid": 5, "tid": 5, "start": 50, "exec_id": 1, "ppid": 0}
    init = {"exec_id": 2, "parent_exec_id": 1}
    found = judged(
        learn(*USUAL), exec_of("runc", exe="/usr/sbin/runc", **runc), exec_of("runc", "runc", "init", exe="/", **init)
    )
    assert kinds(found) == [PROGRAMS]  # the first, which is not what runc begins
    assert kinds(judged(learn(*USUAL), exec_of("runc", "runc", "init", exe="/tmp/runc", **init))) == [PROGRAMS]


def test_nothing_learnt() -> None:
    """A container that did nothing may do nothing."""
    assert sorted(kinds(judged(Learnt(), exec_of("a"), written("/a"), listen(1), connect("1.1.1.1")))) == sorted(KINDS)


@pytest.mark.parametrize(
    ("workload", "names", "others"),
    [
        ("Deployment/web", ["web-6c9f7d8b9c-x2x4z", "web-7-bbbbb"], ["web-api-6c9f7d8b9c-x2x4z", "web-0", "web", "web-6c9f7d8b9c-x2x4z-x"]),
        ("StatefulSet/db", ["db-0", "db-12"], ["db-x", "db-0-0", "adb-0"]),
        ("DaemonSet/log", ["log-x2x4z"], ["log-6c9f7d8b9c-x2x4z", "log-0"]),
        ("CronJob/tidy", ["tidy-28391040-x2x4z", "tidy-28391040-3-x2x4z"], ["tidy-x2x4z"]),
        ("Job/once", ["once-x2x4z", "once-0-x2x4z"], ["once-x2x4z-x2x4z"]),
        ("Pod/a.b", ["a.b"], ["axb"]),
        ("Deployment/a.b", ["a.b-6c9f7d8b9c-x2x4z"], ["axb-6c9f7d8b9c-x2x4z"]),
        ("Thing/x", ["x-what"], ["y-x-what"]),
        (f"Deployment/{'w' * 60}", ["w" * 58 + "x2x4z"], ["x"]),
    ],
)  # fmt: skip
def test_pods_of_a_workload(workload: str, names: list[str], others: list[str]) -> None:
    """A baseline is asked of the pods that a workload may make, and of no other workload's."""
    for name in (*names, *others):
        found = judged(
            Learnt(),
            exec_of("sh"),
            who=WHO._replace(workload=workload),
            node=Node(container={**POD, "k8s.pod.name": name}),
        )
        assert len(found) == (name in names), name


def test_whose() -> None:
    """Another namespace or container is not judged; outside Kubernetes name and image say which container it is."""
    other = ({"k8s.ns.name": "else"}, {"container.name": "side"})
    for change in other:
        assert judged(Learnt(), exec_of("sh"), node=Node(container={**POD, **change})) == []
    plain = {"container.id": ID, "container.name": "db", "container.image.repository": "a/b"}
    who = BaselineSubject("", "", "db", "a/b")
    assert len(judged(Learnt(), exec_of("sh"), who=who, node=Node(container=plain))) == 1
    for change in ({"container.image.repository": "c"}, {"container.name": "x"}, {"k8s.ns.name": "shop"}):
        assert judged(Learnt(), exec_of("sh"), who=who, node=Node(container={**plain, **change})) == []


HOSTILE = (
    "/a'b", '/a"b', "/a\nb", "/a\\b", "/\udcff\udcfe", "/\x1b[2J", "/a: b", "/# x", "/{a}", "/%proc.name", "/*", "/[a]",
    "/\u202e", "/\U0001f600", "/'\\''", "/(a,b)", "/x and y", "/\x00", "/\x7f\x85\u2028",
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_hostile_names(name: str) -> None:
    """Whatever a container calls files and programs, the baseline stays YAML, prints as text, and means that name alone."""
    values = {PROGRAMS: [name], FILES: [name], PORTS: [], PEERS: [name[1:] or "x"]}
    who = BaselineSubject("shop", f"Pod/{name}", name, "")
    text = baseline.write({who: Learnt(values, image=name)})
    assert all(line.isprintable() for line in text.splitlines())
    found = baseline.read(text, "f")
    assert found == {who: Learnt(values, image=name)}
    assert baseline.write(found) == text
    assert all(line.isprintable() for line in baseline.rules(found).splitlines())
    node = Node(container={**POD, "k8s.pod.name": name, "container.name": name})
    if "\0" not in name:
        assert judged(found[who], exec_of("x"), written(name), who=who, node=node)[0].rule.name.startswith("Program")
        assert kinds(judged(found[who], exec_of("x"), written("/other"), who=who, node=node)) == [PROGRAMS, FILES]
        assert kinds(judged(found[who], exec_of("x", exe=name), written(name), who=who, node=node)) == []


def test_names_alike() -> None:
    """Two workloads whose names look the same in an alert's title are both judged."""
    both = {
        BaselineSubject("shop", "Deployment/web", "web", ""): Learnt(),
        BaselineSubject("shop", "StatefulSet/web", "web", ""): Learnt(),
    }
    names = [rule.name for rule in load([("b", baseline.rules(both))]).rules]
    assert len(set(names)) == 8


def test_folders() -> None:
    """A folder with many files stands for all below it, but never a system's folder, nor one of other folders."""
    several = [f"/data/run/{at}" for at in range(seen.MANY + 1)]
    known = Seen()
    known.add_all(FILES, [*several, *(f"/etc/x/{at}" for at in range(20)), *(f"/var/{at}/y" for at in range(20))])
    found = known.of(FILES)
    assert "/data/run/" in found and len(found) == 41
    assert judged(Learnt({kind: found if kind == FILES else [] for kind in KINDS}), written("/data/run/x/new")) == []
    assert kinds(judged(Learnt({kind: found if kind == FILES else [] for kind in KINDS}), written("/data/running"))) == [FILES]  # fmt: skip


def test_any_order() -> None:
    """Learning twice the same gives the same, in whatever order it happened and in whichever pods."""
    choose = random.Random(5)
    paths = [f"/data/{choose.choice('abc')}/{choose.choice('xyz')}/{choose.randint(0, 12)}" for _ in range(150)]
    paths += [f"/srv/{at}" for at in range(7)] + [f"/srv/0/{at}/{at}" for at in range(9)]
    found = set[tuple[str, ...]]()
    for _ in range(20):
        choose.shuffle(paths)
        one, other, both = Seen(), Seen(), Seen()
        one.add_all(FILES, paths[:80])
        other.add_all(FILES, paths[80:])
        both.add_all(FILES, [*one.of(FILES), *other.of(FILES)])
        found.add(tuple(both.of(FILES)))
    assert len(found) == 1


def test_differences() -> None:
    """What was told is not told again."""
    made = Learner(SCHEMA, Node(container=POD))
    made.learn([packed(*USUAL)], 0)
    assert made.collect(whole=True)
    made.learn([packed(*USUAL, listen(81))], 0)
    assert made.collect(whole=True) == {ID: {PORTS: ["tcp/81"]}}


def test_names_come_later() -> None:
    """A peer waits a second for the answer of DNS that names it."""
    now = [0.0]
    node = Node(container=POD)
    node.domains = lambda cgroup_id, address: ("shop.example",) if now[0] else ()  # type: ignore[method-assign]
    made = Learner(SCHEMA, node, lambda: now[0])
    made.learn([packed(connect("10.0.0.9"))], 0)
    assert made.collect() == {}
    now[0] = 1.0
    assert made.collect() == {ID: {PEERS: ["shop.example"]}}


def test_bounds() -> None:
    """A container that does ever more takes no more than its share, and what is beyond is counted, and not judged."""
    ports = (listen(at) for at in range(1, MOST[PORTS] + 15))
    learnt = learn(exec_of("nginx"), *ports, *(written(f"/etc/{at}") for at in range(MOST[FILES] + 15)))
    assert (len(learnt.values[PORTS]), learnt.more) == (MOST[PORTS], {PORTS: 14, FILES: 15})
    assert judged(learnt, listen(999)) == []
    assert baseline.unjudged({WHO: learnt}) == ["files of shop/web (web)", "ports of shop/web (web)"]
    known = Seen()
    known.add_all(PROGRAMS, [f"/{at}" for at in range(MOST[PROGRAMS] + 7)])
    assert known.count(PROGRAMS) == MOST[PROGRAMS]
    long = Seen()
    long.add_all(PROGRAMS, ["/" + "x" * 4000 + str(at) for at in range(100)])
    assert long.count(PROGRAMS) < 70 and long.more[PROGRAMS] > 30


def test_many_containers() -> None:
    """Containers that come and go without end take no more than so many's memory, and it is told."""
    made = Learner(SCHEMA, Node(container=POD))
    for at in range(MOST_CONTAINERS + 7):
        made.add(str(at), PROGRAMS, "/bin/sh")
    assert made.forgotten == 7 and len(made.collect()) == MOST_CONTAINERS + 7


def test_whole_folder() -> None:
    """A folder that an agent tells of takes in what was known below it."""
    paths = Paths()
    for path in ("/data/a", "/data/b/c", "/database"):
        paths.add(path)
    paths.add("/data/")
    assert sorted(paths) == ["/data/", "/database"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("baseline: 2\n", "version 2"),
        ("baseline: 1\nworkloads: x\n", "expected a list"),
        ("baseline: 1\nworkloads:\n- x\n", "a workload is an object"),
        ("baseline: 1\nworkloads:\n- {container: a, prots: []}\n", "a workload has no prots"),
        ("baseline: 1\nworkloads:\n- {namespace: a}\n", "a workload has namespace and workload"),
        ("baseline: 1\nworkloads:\n- {container: a, ports: [80]}\n", "a port is PROTOCOL/NUMBER"),
        ("baseline: 1\nworkloads:\n- {container: a, ports: [tcp/99999]}\n", "a port is PROTOCOL/NUMBER"),
        ("baseline: 1\nworkloads:\n- {container: a, files: ['/a\\q']}\n", "a backslash begins an escape"),
        ("baseline: 1\nworkloads:\n- {container: a}\n- {container: a}\n", "is there twice"),
        ("- a\n", "this is no baseline"),
    ],
)
def test_wrong_files(text: str, why: str) -> None:
    """A file that is no baseline, or makes no sense, is refused with what is wrong and where."""
    with pytest.raises(RulesError, match=why):
        baseline.read(text, "f")


def test_folders_in_words() -> None:
    """The page says of which folders each entry stays a line of its own."""
    page = (Path(__file__).parents[3] / "docs" / "detect.md").read_text()
    said = " ".join(page[page.index("This never happens to ") :].partition(" themselves")[0].split())
    below, _, own = said.removeprefix("This never happens to ").partition(
        " and what is below them. Nor does it happen to "
    )
    assert (re.findall(r"`(.+?)`", below), re.findall(r"`(.+?)`", own)) == ([*seen.SYSTEM], [*seen.HIGH])
