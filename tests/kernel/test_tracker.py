"""No event of a container is missed, and none has the wrong name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import pytest
from grpc_health.v1 import health_pb2

from agent.answering import Health
from agent.containers.tracker import GONE_REMEMBERED, Tracker, Watch
from gadget.errors import GadgetError
from tests.conftest import CLI, events, run_cli, wait_until
from tests.pods import UNIFIED, BareContainer, Pod, annotations, remove_cgroups

NAMES = ("node", "namespace", "pod", "container")


@pytest.fixture
def tracker() -> Iterator[Tracker]:
    running = Tracker()
    yield running
    running.close()


def start_filtered(start_cli, agent, *args: str):
    cli = start_cli("execsnoop", "--agent", agent.address, "-o", "json", *args)
    wait_until(lambda: "execsnoop: started" in agent.log.read_text(), "the stream's start")
    return cli


def test_closed() -> None:
    """An agent that ends does not crash over what is asked of it too late."""
    closed = Tracker()
    assert [name for name, _ in closed.object.programs()] == ["cgroup_made", "cgroup_removed"]
    closed.close()
    assert closed.object.programs() == []
    with pytest.raises(GadgetError, match="no map containers"):
        _ = closed.map_fd


def test_watches_of_several(tracker: Tracker, bare) -> None:
    """A recorder that ends takes only its own subscription away: the others go on learning of containers."""
    told: list[tuple[str, str, int]] = []

    def watch(who: str) -> Watch:
        return tracker.watch(
            lambda cgroup: told.append((who, "came", cgroup.id)),
            lambda cgroup: told.append((who, "gone", cgroup.id)),
            lambda: told.append((who, "changed", 0)),
        )

    first, other = watch("first"), watch("other")
    one = bare()
    one_id = one.cgroup.stat().st_ino
    wait_until(lambda: ("other", "came", one_id) in told and ("first", "came", one_id) in told, "both to be told")
    late = watch("late")
    assert one_id in [cgroup.id for cgroup in late.existing]
    first.close()
    first.close()
    told.clear()
    two_id = bare().cgroup.stat().st_ino
    one.cgroup.rmdir()
    wait_until(lambda: ("late", "gone", one_id) in told, "its end")
    tracker.changed()
    own = [each for each in told if each[2] in (0, one_id, two_id)]
    assert sorted(own) == sorted(
        (who, what, which)
        for who in ("other", "late")
        for what, which in (("came", two_id), ("gone", one_id), ("changed", 0))
    )
    other.close()
    late.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_health_of_the_tracker(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that does not learn of new containers any more is not healthy, so Kubernetes starts it anew."""
    request = health_pb2.HealthCheckRequest()
    states = health_pb2.HealthCheckResponse
    health = Health(lambda: [tracker.worker.problem] if tracker.worker.problem else [])
    assert health.Check(request, None).status == states.SERVING

    def fail() -> None:
        raise SystemExit  # which threads end by without a word

    monkeypatch.setattr(tracker, "_drain", fail)
    wait_until(lambda: health.Check(request, None).status == states.NOT_SERVING, "the end of its thread")


def test_many_cgroups_of_the_host(bare) -> None:
    """However many cgroups there are outside containers, as a user may make them: containers find room in the kernel's
    map, and the rest still is known not to be a container's.
    """
    folders = [UNIFIED / f"gadget-test-{number}" for number in range(7)]
    with closing(Tracker(most_of_host=3)) as tracker:
        for folder in folders:
            folder.mkdir()
        ids = [folder.stat().st_ino for folder in folders]
        try:
            made = bare().cgroup.stat().st_ino
            assert [(found := tracker.resolve(each)) and found.container for each in ids] == [None] * 7
            assert all(tracker.resolve(each) for each in ids)
            assert tracker.resolve(made)
            told = dict(tracker.object.items("containers"))
            assert told[made] == made
            assert len([each for each in told.values() if each == 0]) == 3
        finally:
            for folder in folders:
                folder.rmdir()


def test_first_exec_of_short_pods(agent, start_cli, tmp_path: Path) -> None:
    """Of 200 pods that live for one exec I see each one's first exec, fully named, and none of another namespace."""
    cli = start_filtered(start_cli, agent, "-n", "short")
    for number in range(240):
        namespace = "other" if number % 6 == 0 else "short"
        with Pod(tmp_path, namespace, f"{namespace}-{number}") as pod:
            pod.container("app", "/bin/true", str(number)).wait()
    out, err = cli.finish()
    own = [event for event in events(out) if event["args"][0] == "/bin/true"]
    assert "nothing lost" in err
    assert {event["namespace"] for event in events(out)} == {"short"}
    assert sorted(int(event["args"][1]) for event in own) == [number for number in range(240) if number % 6]
    assert all(event["pod"] == f"short-{event['args'][1]}" for event in own)
    assert all(event[name] for event in own for name in NAMES)


def test_address_that_comes_later(tracker: Tracker, make_pod) -> None:
    """An address that a container gets later is known too, as an IPv6 one after the IPv4 one; both till it ends."""
    cart = make_pod().container("app", "/bin/sleep", "60")
    net = ["nsenter", f"--net=/proc/{cart.pid}/ns/net", "ip"]

    def known() -> tuple[str, ...]:
        tracker.find_addresses()
        (one,) = (item for item in tracker.containers() if item.container and item.container.id == cart.id)
        return one.addresses

    assert known() == ()
    subprocess.run([*net, "addr", "add", "10.77.0.1/32", "dev", "lo"], check=True)
    subprocess.run([*net, "link", "set", "lo", "up"], check=True)
    wait_until(lambda: known() == ("10.77.0.1",), "the address")
    subprocess.run([*net, "addr", "add", "fd77::1/128", "dev", "lo"], check=True)
    wait_until(lambda: known() == ("10.77.0.1", "fd77::1"), "the other address")
    cart.delete()
    assert known() == ("10.77.0.1", "fd77::1")


def test_network_of_ones_own(tracker: Tracker, make_pod) -> None:
    """A container that makes itself a network with another's address in it is not taken for that one."""
    pod = make_pod()
    for container, address in (("pause", "10.77.0.2"), ("app", "10.96.0.1")):
        made = pod.container(container, "/bin/sleep", "60", kind="sandbox" if container == "pause" else "container")
        net = ["nsenter", f"--net=/proc/{made.pid}/ns/net", "ip"]
        subprocess.run([*net, "addr", "add", f"{address}/32", "dev", "lo"], check=True)
    tracker.find_addresses()
    (one,) = (item for item in tracker.containers() if item.container and item.container.id == made.id)
    assert one.addresses == ("10.77.0.2",)


def test_fifty_pods_at_once(agent, start_cli, tmp_path: Path) -> None:
    """Of 50 pods that start at once I see each one's first exec, fully named."""
    cli = start_filtered(start_cli, agent, "-n", "burst")
    with ExitStack() as stack:
        pods = [stack.enter_context(Pod(tmp_path, "burst", f"burst-{number}")) for number in range(50)]
        prepared = [pod.prepare("app", "/bin/true", str(number)) for number, pod in enumerate(pods)]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started = [subprocess.Popen(container.command, **quiet) for container in prepared]
        assert [process.wait() for process in started] == [0] * 50
    own = [event for event in events(cli.finish()[0]) if event["args"][0] == "/bin/true"]
    assert sorted(int(event["args"][1]) for event in own) == list(range(50))
    assert all(event["pod"] == f"burst-{event['args'][1]}" and event["container"] == "app" for event in own)


def test_pods_of_another_node(make_pod) -> None:
    """Where nodes share a kernel, each one's agent counts and shows its own pods, and containers in no pod."""
    own = make_pod().container("app", "/bin/sleep", "60")
    other, bare = (f"gadget-test-{os.getpid()}/{path}/{own.id}" for path in (f"kubepods/pod{uuid4()}", "docker"))
    for path in (other, bare):
        (UNIFIED / path).mkdir(parents=True)
    try:
        with closing(Tracker(pod_uid=own.pod.uid)) as tracker:
            found = {path: tracker.resolve((UNIFIED / path).stat().st_ino) for path in (own.cgroup[1:], other, bare)}
    finally:
        for path in (other, bare):
            remove_cgroups(path)
    assert [item.container is not None for item in found.values() if item] == [True, False, True]


def test_nested_cgroups_stay_in_the_filter(agent, start_cli, make_pod) -> None:
    """A container that makes cgroups inside its own, at any depth, stays in the filter; a process moved out leaves."""
    container = make_pod("nest", "nest-0").container("app", "/bin/sleep", "60")
    cli = start_filtered(start_cli, agent, "-p", "nest-0")
    inner = UNIFIED / container.cgroup.lstrip("/") / "system.slice" / "deep" / "deeper"
    inner.mkdir(parents=True)
    try:
        for place, word in ((inner, "nested"), (UNIFIED, "outside")):
            join = f"echo 0 > {place}/cgroup.procs; /bin/true {word}"
            subprocess.run(["sh", "-c", join], check=True)
    finally:
        for folder in (inner, inner.parent, inner.parent.parent):
            folder.rmdir()
    seen = [event for event in events(cli.finish()[0]) if event["args"][0] == "/bin/true"]
    assert [event["args"][1] for event in seen] == ["nested"]
    assert (seen[0]["pod"], seen[0]["containerId"]) == ("nest-0", container.id)


def test_namespaces_and_daemons_stay_in_the_filter(agent, start_cli, make_pod) -> None:
    """A container that unshares its mount namespace or forks daemons stays in the filter."""
    script = "busybox unshare -m /bin/true unshared; (busybox setsid /bin/sh -c '/bin/true daemon' &) ; /bin/sleep 60"
    cli = start_filtered(start_cli, agent, "-p", "daemon-0")
    make_pod("nest", "daemon-0").container("app", "/bin/sh", "-c", script)
    found: list[str] = []

    def both() -> bool:
        found.append(cli.process.stdout.readline())
        return {"unshared", "daemon"} <= {word for line in found for word in events(line)[0]["args"][1:]}

    wait_until(both, "both execs")
    assert {events(line)[0]["pod"] for line in found} == {"daemon-0"}


def test_selection(agent, start_cli, make_pod) -> None:
    """-n, -p and -c choose with lists and !, containers that start later too; pause containers are never shown."""
    cli = start_filtered(start_cli, agent, "-n", "shop,web", "-c", "!istio-proxy", "-p", "!web-1")
    for namespace, name in (("shop", "cart-0"), ("web", "web-0"), ("web", "web-1"), ("bank", "bank-0")):
        pod = make_pod(namespace, name)
        for container, kind in (("pause", "sandbox"), ("app", "container"), ("istio-proxy", "container")):
            pod.container(container, "/bin/true", container, kind=kind)
    seen = {(event["pod"], event["container"]) for event in events(cli.finish()[0])}
    assert seen == {("cart-0", "app"), ("web-0", "app")}


def test_ten_thousand_containers(agent, start_cli) -> None:
    """After 10,000 short containers the agent has grown by less than 48 MB, has lost nothing, and names the last ones."""

    def resident() -> int:
        return int(Path(f"/proc/{agent.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    cli = start_filtered(start_cli, agent, "-n", "churn", "-p", "!skipped")
    before = resident()
    living: deque[BareContainer] = deque()
    for number in range(10_000):
        living.append(BareContainer("churn", f"churn-{number}" if number % 100 == 0 else "skipped"))
        if number % 100 == 0:
            living[-1].run("/bin/true", str(number))
        if len(living) > 50:  # each lives for about 0.1 s, as the shortest of a real runtime do
            living.popleft().delete()
    for container in living:
        container.delete()
    grown = resident() - before
    listed = run_cli("containers", "--agent", agent.address, "-n", "churn", "-o", "json").stdout.splitlines()
    out, err = cli.finish()
    seen = events(out)
    assert [int(event["args"][1]) for event in seen] == list(range(0, 10_000, 100))
    assert all(event["pod"] == f"churn-{event['args'][1]}" for event in seen)
    assert "nothing lost" in err
    assert len(listed) <= GONE_REMEMBERED
    assert events(listed[-1])[0]["state"] == "ended"
    assert grown < 48 << 20, f"{grown / 1e6:.0f} MB"
    assert "cgroups: events of the rest" not in agent.log.read_text()


def test_late_events_are_named(agent, start_cli) -> None:
    """An event that is read when its container and all its files are gone still has its names."""
    cli = start_filtered(start_cli, agent, "-n", "late")
    container = BareContainer("late", "late-0")
    listed = ["containers", "--agent", agent.address, "-n", "late", "-o", "json"]
    wait_until(lambda: run_cli(*listed).stdout, "the container")
    agent.process.send_signal(signal.SIGSTOP)
    container.run("/bin/true", "late")
    container.delete()
    agent.process.send_signal(signal.SIGCONT)
    (event,) = events(cli.finish()[0])
    assert [event[name] for name in NAMES] == ["node-a", "late", "late-0", "app"]


def test_changes_lost(agent) -> None:
    """When more cgroups come at once than the kernel can queue for us, the tree is read again and nothing is missing."""
    agent.process.send_signal(signal.SIGSTOP)
    made = [BareContainer("many", f"many-{number}") for number in range(700)]  # two changes each, room for about 1,000
    agent.process.send_signal(signal.SIGCONT)
    try:
        found = run_cli("containers", "--agent", agent.address, "-n", "many", "-o", "json").stdout.splitlines()
        assert Counter(events(line)[0]["pod"] for line in found) == Counter(f"many-{number}" for number in range(700))
        assert "reading the tree again" in agent.log.read_text()
    finally:
        for container in made:
            container.delete()


def test_cgroup_ids_do_not_come_again(tracker: Tracker) -> None:
    """An event is never named after another container: ids differ, and one that came again would be the new one's."""
    first = BareContainer("reuse", "first")
    old = os.stat(first.cgroup).st_ino
    assert tracker.resolve(old).container.pod == "first"
    first.delete()
    ids = {old}
    for _ in range(300):
        each = BareContainer("reuse", "each")
        ids.add(os.stat(each.cgroup).st_ino)
        each.delete()
    assert len(ids) == 301
    assert tracker.resolve(old).container.pod == "first"
    second = BareContainer("reuse", "second")
    path = "/" + str(second.cgroup.relative_to(UNIFIED))
    tracker.catch_up()
    with tracker._reading:
        tracker._add(old, path, time.clock_gettime_ns(time.CLOCK_BOOTTIME))  # as if the kernel had used the id again
    second.delete()
    assert tracker.resolve(old).container.pod == "second"


def test_gone_cgroups_leave_the_map(tracker: Tracker) -> None:
    """Cgroups that come and go quickly, the host's own too, do not fill the kernel's table."""
    with tracker._reading:  # nothing is read meanwhile: each is gone when we hear that it was made
        for number in range(53):
            folder = UNIFIED / f"short-{number}"
            folder.mkdir()
            folder.rmdir()
            BareContainer("short", f"short-{number}").delete()
    tracker.containers()
    living = {os.stat(folder).st_ino for folder, _, _ in os.walk(UNIFIED)}
    assert {cgroup for cgroup, _ in tracker._object.items("containers")} <= living


def test_odd_cgroups(agent, start_cli) -> None:
    """A container without config.json, and cgroups with odd names inside it, are shown with what is known."""
    container = BareContainer("odd", "odd-0")
    (container.bundle / "config.json").write_text("{")
    bare = UNIFIED / "kubepods/besteffort/podffffffff-0000-4000-8000-000000000000" / ("f" * 64)
    bare.mkdir(parents=True)
    odd = bare / "a \u2028\x1b[31m'\"\\x"
    odd.mkdir()
    cli = start_filtered(start_cli, agent)
    try:
        subprocess.run(["sh", "-c", 'echo 0 > "$0/cgroup.procs"; /bin/true odd', str(odd)], check=True)
        wait_until(lambda: "execsnoop: started" in agent.log.read_text(), "the stream")
        shown = [event for event in events(cli.finish()[0]) if event["args"] == ["/bin/true", "odd"]]
        assert [(event["containerId"], event["pod"]) for event in shown] == [("f" * 64, None)]
        assert "no names found" in agent.log.read_text()
    finally:
        odd.rmdir()
        bare.rmdir()
        remove_cgroups("kubepods/besteffort/podffffffff-0000-4000-8000-000000000000")
        container.delete()


def test_ready_with_250_containers(start_agent) -> None:
    """On a node with 250 running containers the agent is ready within a second, and knows them all."""
    made = [BareContainer("full", f"full-{number}") for number in range(250)]
    try:
        began = time.monotonic()
        tracker = Tracker()
        took = time.monotonic() - began
        known = [item for item in tracker.containers() if item.container.namespace == "full" and not item.ended]
        tracker.close()
        assert len(known) == 250
        assert took < 1.0
    finally:
        for container in made:
            container.delete()


def test_containers_command(agent, start_cli, make_pod) -> None:
    """`containers` lists what the agent knows; -w goes on with each container that comes and goes."""
    pod = make_pod("shop", "cart-0")
    container = pod.container("app", "/bin/sleep", "60")
    pod.container("pause", "/bin/sleep", "60", kind="sandbox")
    listed = run_cli("containers", "-n", "shop", "--agent", agent.address).stdout.splitlines()
    assert listed[0].split() == ["NODE", "NAMESPACE", "POD", "CONTAINER", "ID", "RUNTIME", "CGROUP", "STATE", "STARTED"]
    assert [line.split()[:7] for line in listed[1:]] == [
        ["node-a", "shop", "cart-0", "app", container.id[:12], "containerd",
         str(os.stat(UNIFIED / container.cgroup.lstrip("/")).st_ino)]
    ]  # fmt: skip
    cli = start_cli("containers", "-w", "-n", "shop", "-o", "json", "--agent", agent.address)
    assert events(cli.process.stdout.readline())[0]["state"] == "running"
    second = pod.container("second", "/bin/sleep", "60")
    assert events(cli.process.stdout.readline())[0]["container"] == "second"
    second.delete()
    changed = events(cli.process.stdout.readline())[0]
    assert (changed["container"], changed["state"]) == ("second", "ended")
    assert changed["ended"] > changed["started"]


def test_completion_of_names(start_agent, make_pod) -> None:
    """The shell completes namespaces and pods that run here, in lists and behind ! too."""
    start_agent("--listen", "unix:///run/gadget/agent.sock")
    for namespace, name in (("word-shop", "cart-0"), ("word-web", "web-0")):
        make_pod(namespace, name).container("app", "/bin/sleep", "60")

    def complete(*args: str) -> list[str]:
        command = [CLI.with_name("kubectl_complete-gadget"), "execsnoop", *args]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    assert complete("-n", "word-") == ["word-shop", "word-web", ":4"]
    assert complete("-n", "word-shop,!word-w") == ["word-shop,!word-web", ":4"]
    assert complete("-n", "word-web", "-p", "") == ["web-0", ":4"]


def test_started_before_the_agent(start_agent, make_pod) -> None:
    """A container that ran before the agent is shown with its own start, not with the agent's."""
    make_pod().container("app", "/bin/sleep", "600")
    before = time.time()
    wait_until(lambda: time.time() - before > 0.2, "a time that can be told")
    agent = start_agent()
    (row,) = events(run_cli("containers", "-p", "cart", "--agent", agent.address, "-o", "json").stdout)
    assert datetime.fromisoformat(row["started"]).timestamp() < before


def test_host_root(start_agent, make_pod, tmp_path: Path) -> None:
    """An agent in a container finds the host's cgroups and runtimes where --host-root says they are mounted."""
    container = make_pod("shop", "cart-0").container("app", "/bin/sleep", "60")
    host = tmp_path / "host"
    bundle = host / container.bundle.relative_to("/")
    bundle.mkdir(parents=True)
    (bundle / "config.json").write_text(json.dumps({"annotations": annotations("shop", "below-host-root", "app")}))
    (host / "sys").symlink_to("/sys")
    agent = start_agent("--host-root", str(host))
    (row,) = events(run_cli("containers", "-n", "shop", "--agent", agent.address, "-o", "json").stdout)
    assert (row["pod"], row["containerId"]) == ("below-host-root", container.id)


def test_more_than_can_be_followed(agent, start_cli) -> None:
    """Programs of containers that came and went while more changed than could be followed are counted as lost."""
    cli = start_cli("execsnoop", "-n", "shop", "--agent", agent.address, "-o", "json")
    wait_until(lambda: "execsnoop: started" in agent.log.read_text(), "the stream")
    agent.process.send_signal(signal.SIGSTOP)
    try:
        for _ in range(1009):  # more than the kernel's queue of changes holds, with the removals
            BareContainer("other", "noise").delete()
        late = BareContainer("shop", "late")
        for _ in range(13):
            late.run("/bin/true")
        late.delete()
    finally:
        agent.process.send_signal(signal.SIGCONT)
    known = BareContainer("shop", "known")
    known.run("/bin/true")
    wait_until(lambda: "cgroup changes lost" in agent.log.read_text(), "the loss of changes")
    out, err = cli.finish()
    known.delete()
    assert [event["pod"] for event in events(out)] == ["known"]
    assert "13 lost: container not known on node-a (other 13)" in err
