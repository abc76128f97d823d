"""`why` of a cluster: with an API server and an agent that say what a test makes up."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

from gadget._generated import gadget_pb2 as pb
from gadget.errors import GadgetError
from gadget.kube.api import api_server
from gadget.kube.kubeconfig import ClusterFlags, read_context
from kubectl_gadget import cli
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.cluster.agents import NoAgents
from kubectl_gadget.why import commands
from kubectl_gadget.why.cluster import ClusterFacts as ApiSide
from tests.cluster_api import Cluster, serve_cluster
from tests.unit.traceloop.fake import FakeRecorder, item
from tests.unit.traceloop.replies import record, reply
from tests.unit.why.pods import RUNS, Object, condition, ended, event, pod, waits
from tests.unit.why.stories import Story

PODS, EVENTS = "/api/v1/namespaces/shop/pods", "/api/v1/namespaces/shop/events"
REFUSED = "connect", -111
SECOND = 1_000_000_000


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cluster]:
    """An API server whose context has the namespace shop, with nothing in it."""
    with serve_cluster() as running:
        config = {
            "clusters": [{"name": "c", "cluster": {"server": running.url}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
            "current-context": "x",
        }
        (tmp_path / "kubeconfig").write_bytes(orjson.dumps(config))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        monkeypatch.setenv("COLUMNS", "250")
        read_context.cache_clear()  # what is known of another test's
        for kind in ("pods", "nodes", "services", "events"):
            running.lists[f"/api/v1/{kind}"] = []
        yield running


class Why:
    """Runs why against an API server and agents by node, which have recordings."""

    def __init__(self, server: Cluster, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server, self._folder = server, folder
        self.agents: dict[str, FakeRecorder] = {}
        self.error: GadgetError | None = None
        monkeypatch.setattr(commands, "find_targets", self._find)

    @contextmanager
    def _find(self, agents: Sequence[str], local: bool) -> Iterator[Callable[[], Targets]]:
        def targets() -> Targets:
            if self.error:
                raise self.error
            return Targets({node: partial(str, agent.address) for node, agent in self.agents.items()})

        yield targets

    def have(self, *pods: Object, events: Sequence[Object] = ()) -> None:
        """The cluster has these pods and events."""
        for each in pods:
            self.server.lists.setdefault(f"/api/v1/namespaces/{each['metadata']['namespace']}/pods", []).append(each)
            self.server.lists["/api/v1/pods"].append(each)
        self.server.lists.setdefault(EVENTS, []).extend(events)
        self.server.lists["/api/v1/events"].extend(events)

    def record(self, *items: pb.TraceloopItem, node: str = "node-a", replies: Any = None) -> None:
        """The agent of a node has these recordings, with these replies to whoever reads one."""
        self.agents[node] = FakeRecorder(self._folder, list(items), replies)

    def run(self, *arguments: str) -> Result:
        """Run the command."""
        return CliRunner().invoke(cli.cli, ["why", *arguments], standalone_mode=False)

    def lines(self, *arguments: str) -> list[str]:
        """What it prints, without what is at the start of lines."""
        done = self.run(*arguments)
        assert done.exit_code == 0, done.output
        return [re.sub(r"^ +(certain|likely|nothing|unclear)? *", "", line) for line in done.stdout.splitlines()]


@pytest.fixture
def why(server: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Why]:
    made = Why(server, tmp_path, monkeypatch)
    yield made
    for agent in made.agents.values():
        agent.__exit__()


PULL = waits("ImagePullBackOff", 'Back-off pulling image "x:1": ErrImagePull: failed: "x:1": not found')


def now(seconds: float = 0) -> int:
    return time.time_ns() + int(seconds * 1e9)


def run_of(
    name: str, container: str = "app", container_id: str = "ab12", *, status: int | None = 256, before: float = 5,
    cgroup: int = 7, **more: Any,
) -> pb.TraceloopItem:  # fmt: skip
    """A recording of a run that ended so many seconds ago, or that goes on."""
    state: dict[str, Any] = {"running": True} if status is None else {
        "ended_ns": now(-before), "status": status, "known": True}  # fmt: skip
    return item(name, container, container_id, cgroup=cgroup, started_ns=now(-before - 20), **state, **more)


def test_a_pod_that_never_started(why: Why) -> None:
    """A pod whose image cannot be had: the reason, and that there is no recording, and why."""
    why.have(pod(state=PULL))
    why.record()
    assert why.lines("cart") == [
        "shop/cart, container app, waits (ImagePullBackOff) on node-a",
        "its image shop/cart:1 cannot be had: not found (ImagePullBackOff)",
        "there is no recording: it has not started",
    ]
    found = orjson.loads(why.run("cart", "-o", "json").stdout)
    assert (found["findings"][0]["cause"], found["unrecorded"]) == ("image-pull", "it has not started")


def test_by_the_beginning_of_its_name(why: Why) -> None:
    """I need not write a pod's whole name, with or without its namespace."""
    why.have(pod("cart-6c9f7d5b8-x2x7l", state=PULL))
    why.record()
    for name in ("cart", "cart-6c9f7d5b8-x2x7l", "shop/cart-6c9f7d5b8-x2x7l"):
        assert "not found (ImagePullBackOff)" in why.lines(name)[1]


def test_no_pod_of_that_name(why: Why) -> None:
    """A name that nothing has is told, with what there is instead."""
    why.have(pod(state=PULL))
    why.record(run_of("web"))
    done = why.run("redis")
    assert done.exit_code != 0 and "redis" in str(done.exception or done.output)


@pytest.mark.parametrize(
    ("given", "error", "reason"),
    [
        (pod(conditions=[condition("PodScheduled", "Unschedulable", "0/2 nodes")], spec={"nodeName": ""}), None,
         "its pod is on no node yet"),
        (pod(state=PULL, spec={"nodeName": "node-b"}), None, "no agent on node node-b"),
        (pod(state=waits("CrashLoopBackOff"), last=ended(1), phase="Running"), None, "it is not recorded"),
        (pod(state=PULL), NoAgents("no agents in namespace gadget"), "no agents in namespace gadget"),
    ],
)  # fmt: skip
def test_why_there_is_no_recording(why: Why, given: Object, error: GadgetError | None, reason: str) -> None:
    """Without a recording the answer comes from the API server alone, and says why there is none."""
    why.have(given)
    why.record()
    why.error = error
    assert why.lines("cart")[-1] == f"there is no recording: {reason}"


def test_no_agents_and_no_pods(why: Why) -> None:
    """Without agents, and without such a pod, I am told that there are no agents."""
    why.error = NoAgents("no agents in namespace gadget")
    assert "no agents in namespace gadget" in str(why.run("cart").exception)


def test_the_pod_that_is_worst_off(why: Why) -> None:
    """Of several pods of a workload the bad one is shown, whether it has a recording or not, and others are named."""
    selector = {"matchLabels": {"app": "web"}}
    why.server.objects["/apis/apps/v1/namespaces/shop/deployments/web"] = {"spec": {"selector": selector}}
    labels = {"app": "web"}
    why.have(
        pod("web-1", state=RUNS, ready=True, labels=labels),
        pod("web-2", state=PULL, labels=labels),
        pod("web-3", state=RUNS, labels=labels),
        pod("other", state=waits("CrashLoopBackOff"), last=ended(1)),
    )
    why.record(run_of("web-1", status=None, cgroup=1, labels=pb.Labels(labels=labels)),
               run_of("web-3", container_id="cd34", status=None, cgroup=2, labels=pb.Labels(labels=labels)))  # fmt: skip
    done = why.run("deploy/web")
    assert done.stdout.startswith("shop/web-2, container app, waits (ImagePullBackOff)"), done.output
    assert "also badly off: shop/web-3/app" in done.stderr


@pytest.mark.parametrize("others", ["crashed", "runs"])
def test_the_container_that_matters(why: Why, others: str) -> None:
    """Of a pod's containers that is shown which is badly off, an init container that failed before all."""
    app = (
        {"state": waits("PodInitializing")}
        if others == "runs"
        else {"state": waits("CrashLoopBackOff"), "last": ended(2)}
    )
    loop = {"state": waits("CrashLoopBackOff"), "lastState": ended(4, message="no schema")}
    why.have(pod(**app, init=[({"name": "prepare"}, {"state": ended(0)}), ({"name": "migrate"}, loop)]))
    why.record()
    assert why.lines("cart")[:2] == [
        "shop/cart, init container migrate, waits (CrashLoopBackOff), exited with 4 before on node-a",
        'it exited with 4, and left the message "no schema"',
    ]


def test_the_container_that_ended_badly_last(why: Why) -> None:
    """Of a pod's containers that ended badly, the last is shown: by recordings, with rights or without."""
    why.record(run_of("cart", "app", "ab12", before=50, cgroup=1), run_of("cart", "proxy", "cd34", before=5, cgroup=2),
               run_of("cart", "log", "ef56", status=None, cgroup=3))  # fmt: skip
    assert why.lines("cart")[0].startswith("shop/cart, container proxy, ended 5s ago on node-a: exited with 1")
    assert why.lines("cart", "-c", "app")[0].startswith("shop/cart, container app, ended 50s ago")


def test_a_recorded_end_with_what_kubernetes_says(why: Why) -> None:
    """A recorded end has the restarts, and the probe because of which it was killed."""
    probe = {"livenessProbe": {"httpGet": {"port": 8080, "path": "/health"}}}
    killing = event("Killing", "Container app failed liveness probe, will be restarted")
    unhealthy = event("Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 503")
    for each in (killing, unhealthy):
        each["lastTimestamp"] = each["firstTimestamp"] = _clock(-6)
    why.have(pod(state=RUNS, container=probe, restarts=4, created=-1e9, container_id="ef56",
                 last=ended(137, container_id="ab12")), events=[killing, unhealthy])  # fmt: skip
    why.record(run_of("cart", status=9))
    lines = why.lines("cart")
    assert lines[0].startswith("shop/cart, container app, restart 4, ended 5s ago on node-a: killed by SIGKILL")
    assert lines[1] == "the kubelet killed it, as its liveness probe (GET :8080/health) failed: HTTP status 503"


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


def connects(address: str, port: int) -> list[pb.TraceloopReadReply]:
    """A recording of a connection that was refused."""
    where = bytes([2, 0, *port.to_bytes(2, "big"), *map(int, address.split(".")), *bytes(8)])
    rows = [
        record(1, name="connect", args=(3, 0x1000, 16), text=where, result=-111),
        record(2, name="exit_group", args=(1,)),
    ]
    recorded = run_of("cart")
    return [reply(*rows, item=recorded)]


@pytest.mark.parametrize(
    ("address", "endpoints", "name", "note"),
    [
        ("10.96.0.7", [], "svc/shop/redis:6379", True),
        ("10.96.0.7", [{"conditions": {"ready": False}}], "svc/shop/redis:6379", True),
        ("10.96.0.7", [{"conditions": {"ready": True}}], "svc/shop/redis:6379", False),
        ("10.244.0.9", [], "pod/shop/db-0:6379", False),
        ("203.0.113.9", [], "203.0.113.9:6379", False),
    ],
)
def test_names_of_addresses(why: Why, address: str, endpoints: list[Object], name: str, note: bool) -> None:
    """Who refused a connection is told by name, and of a service also that no pod of it is ready."""
    db = pod("db-0", state=RUNS, ready=True, podIPs=[{"ip": "10.244.0.9"}], podIP="10.244.0.9")
    why.have(pod(state=waits("CrashLoopBackOff"), last=ended(1, container_id="ab12"), created=-1e9, podIP=""), db)
    why.server.lists["/api/v1/services"] = [
        {"metadata": {"namespace": "shop", "name": "redis"}, "spec": {"clusterIPs": ["10.96.0.7"]}}
    ]
    why.server.lists["/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices"] = [{"endpoints": endpoints}]
    why.record(run_of("cart"), replies=connects(address, 6379))
    lines = why.lines("cart")
    assert f"could not connect to {name}: connection refused (ECONNREFUSED)" in lines[1]
    assert ("no pod of it is ready" in lines) is note


@pytest.mark.parametrize(
    ("refused", "lines"),
    [
        ([EVENTS], ["events are not shown: you may not list events in namespace shop"]),
        (
            [PODS, f"{PODS}/cart"],
            ["what Kubernetes says of pods is not shown: you may not list pods in namespace shop"],
        ),
    ],
)
def test_what_i_may_not_see(why: Why, refused: list[str], lines: list[str]) -> None:
    """What I may not see of the cluster is told in a line; the recording is shown all the same."""
    why.have(pod(state=waits("CrashLoopBackOff"), last=ended(1)))
    why.server.refused = {("GET", path): (403, "forbidden") for path in refused}
    why.record(run_of("cart"))
    shown = why.lines("cart")
    assert "exited with 1" in shown[0] and all(line in shown for line in lines), shown


def test_one_pod_that_i_may_get(why: Why) -> None:
    """If I may get a pod, and not list them, what Kubernetes says of a recorded one is there."""
    why.have(pod(state=waits("CrashLoopBackOff"), last=ended(1, container_id="ab12"), restarts=3, created=-1e9))
    why.server.objects[f"{PODS}/cart"] = why.server.lists[PODS][0]
    why.server.refused = {("GET", PODS): (403, "forbidden")}
    why.record(run_of("cart"))
    assert why.lines("cart")[0].startswith("shop/cart, container app, restart 3, ended")


def test_a_slow_api_server(why: Why) -> None:
    """An API server that hangs holds up no answer for more than 2 s, and what is missing is told."""
    held = threading.Event()
    why.have(pod(state=waits("CrashLoopBackOff"), last=ended(1)))
    why.server.asked = lambda path: held.wait(20) and None
    why.record(run_of("cart"))
    began = time.monotonic()
    lines = why.lines("cart")
    took = time.monotonic() - began
    held.set()
    assert took < 3 and "exited with 1" in lines[0] and any("no answer in time" in line for line in lines), lines


def test_all_at_once(why: Why) -> None:
    """What an answer needs of the API server is asked for at once: it takes as long as the slowest."""
    why.have(pod(state=waits("CrashLoopBackOff"), last=ended(1), created=-1e9))
    why.record(run_of("cart"), replies=connects("10.96.0.7", 6379))
    why.server.asked = lambda path: time.sleep(0.2)
    began = time.monotonic()
    why.lines("cart")
    assert time.monotonic() - began < 1  # pods and events; then nodes, services and the pod of that address


def test_many_at_once(why: Why) -> None:
    """However many ends `why -A` looks at at once, it waits as long as for one, and asks for each thing once."""
    why.server.lists["/api/v1/services"] = [
        {"metadata": {"namespace": "shop", "name": "redis"}, "spec": {"clusterIPs": ["10.96.0.7"]}}
    ]
    why.server.asked = lambda path: time.sleep(0.6 if "events" in path else 0.2)
    shared = ApiSide(api_server(read_context(ClusterFlags())), [], every_event=True)
    history = Story().connects("10.96.0.7:6379").exits(1).facts().history

    def look(number: int) -> dict[str, str]:
        shared.facts("shop", f"cart-{number}", "app")
        return shared.names(history)[0]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(look, range(8))) == [{"10.96.0.7:6379": "svc/shop/redis:6379"}] * 8
    paths = [path for path, _ in why.server.queries]
    assert not shared.missing and len(paths) == len(set(paths))


@pytest.mark.parametrize(
    ("address", "told"), [("203.0.113.9", True), ("10.244.0.9", False)], ids=["no name", "another name"]
)
def test_names_that_i_may_not_see(why: Why, address: str, told: bool) -> None:
    """Of an address without a name I am told what may not be asked that could have one, of one with a name nothing."""
    why.have(pod(state=waits("CrashLoopBackOff"), last=ended(1, container_id="ab12"), created=-1e9, podIP=""),
             pod("db-0", state=RUNS, ready=True, podIPs=[{"ip": "10.244.0.9"}], podIP="10.244.0.9"))  # fmt: skip
    why.server.refused = {("GET", "/api/v1/nodes"): (403, "forbidden")}
    why.record(run_of("cart"), replies=connects(address, 6379))
    assert ("the names of addresses are not shown: you may not list nodes" in why.lines("cart")) is told


def test_a_pod_that_is_gone(why: Why) -> None:
    """A pod that was deleted is shown by its recording."""
    why.have(pod("other", state=RUNS, ready=True))
    why.record(run_of("cart", status=15))
    lines = why.lines("cart")
    assert "killed by SIGTERM" in lines[0] and "to end" in lines[1]


def test_another_pod_of_the_same_name(why: Why) -> None:
    """A pod that was replaced by one of its name is told of as deleted; what happens to the new one is not said of it."""
    killing = event("Killing", "Container app failed liveness probe, will be restarted", uid="new")
    killing["lastTimestamp"] = killing["firstTimestamp"] = _clock(-5)
    new = pod(state=RUNS, ready=True)
    new["metadata"] |= {"uid": "new", "creationTimestamp": _clock(-2)}
    why.have(new, events=[killing])
    why.record(run_of("cart", status=15))
    assert "probe" not in " ".join(why.lines("cart"))


def row(line: str) -> tuple[str, ...]:
    return tuple(re.split(r"  +", line.strip()))


def test_all_that_is_bad(why: Why) -> None:
    """`why -A` has a line for each bad end and for each pod that is kept from running, and none for what is as it should."""
    old = [condition("Ready", "ContainersNotReady", since=-120)]
    young = [{**old[0], "lastTransitionTime": _clock(-5)}]
    why.have(
        pod("image", state=PULL),
        pod("large", conditions=[condition("PodScheduled", "Unschedulable", "0/2 nodes"), *old], spec={"nodeName": ""}),
        pod(
            "soon", conditions=[condition("PodScheduled", "Unschedulable", "0/2 nodes"), *young], spec={"nodeName": ""}
        ),
        pod("loop", state=waits("CrashLoopBackOff"), last=ended(1, message="no luck"), phase="Running"),
        pod("unready", state=RUNS, conditions=old),
        pod("starting", state=RUNS, conditions=young),
        pod("creating", state=waits("ContainerCreating"), conditions=young),
        pod("fine", state=RUNS, ready=True),
        pod("done", state=ended(0), phase="Succeeded"),
        pod("leaving", state=PULL, deleting=True),
        pod("crashed", state=waits("CrashLoopBackOff"), last=ended(1, container_id="id4"), created=-1e9),
        pod("evicted", phase="Failed", reason="Evicted", message="Usage of EmptyDir volume", state=ended(137)),
        pod("sidecar", phase="Succeeded", state=ended(0), created=-1e9),
    )
    why.record(
        run_of("deleted", status=15, cgroup=1, container_id="id1"),
        run_of("killed", status=9, cgroup=2, container_id="id2"),
        run_of("job", status=0, cgroup=3, container_id="id3"),
        run_of("crashed", status=256, cgroup=4, container_id="id4"),
        run_of("gone", status=512, cgroup=5, container_id="id5"),
        run_of("sidecar", "proxy", status=2, cgroup=6, container_id="id6"),
    )
    done = why.run("-A")
    assert done.exit_code == 0, done.output
    rows = {row(line)[2]: row(line) for line in done.stdout.splitlines()[1:]}
    assert set(rows) == {"image", "large", "loop", "unready", "crashed", "gone", "evicted"}, done.output
    assert rows["image"] == ("-", "shop", "image", "app", "ImagePullBackOff",
                             "its image shop/cart:1 cannot be had: not found (ImagePullBackOff)")  # fmt: skip
    assert rows["large"][4:] == ("Pending", "no node takes it: 0/2 nodes")
    assert rows["loop"][4:] == ("CrashLoopBackOff", 'likely: it exited with 1, and left the message "no luck"') or (
        rows["loop"][4:] == ("CrashLoopBackOff", 'it exited with 1, and left the message "no luck"')
    )
    assert (rows["crashed"][4], rows["gone"][4], rows["unready"][4]) == ("exited 1", "exited 2", "not ready")
    assert [path for path, _ in why.server.queries].count("/api/v1/pods") == 1


def test_nodes(why: Why) -> None:
    """With --node, pods of other nodes are not looked at."""
    why.have(pod("image", state=PULL), pod("other", state=PULL, spec={"nodeName": "node-b"}))
    why.record()
    lines = why.run("-A", "--node", "node-a").stdout.splitlines()
    assert [row(line)[2] for line in lines[1:]] == ["image"]


def test_the_newest_bad_end(why: Why) -> None:
    """Without a name the newest bad end of the namespace is shown; if nothing is bad, I am told to name one."""
    why.have(pod("fine", state=RUNS, ready=True))
    why.record(run_of("old", container_id="ab12", before=500, cgroup=1))
    assert why.lines()[0].startswith("shop/old, container app")
    why.have(
        pod("loop", state=waits("CrashLoopBackOff"), last={"terminated": {"exitCode": 1, "finishedAt": _clock(-9)}})
    )
    assert why.lines()[0].startswith("shop/loop, container app, waits (CrashLoopBackOff), exited with 1 before")


def test_nothing_is_bad(why: Why) -> None:
    """If nothing ended badly and nothing is kept from running, I am told so."""
    why.have(pod("fine", state=RUNS, ready=True))
    why.record(run_of("fine", status=None))
    assert "nothing here ended badly" in str(why.run().exception)
    assert "nothing ended badly" in why.run("-A").stderr


def test_an_api_server_that_does_not_answer(why: Why) -> None:
    """If there is no recording of a name, and the API server did not tell of its pods, both are said."""
    why.server.refused = {("GET", PODS): (403, "forbidden")}
    why.record(run_of("web"))
    done = why.run("cart")
    assert "no recording of 'cart'" in str(done.exception)
    assert "you may not list pods in namespace shop" in done.stderr
