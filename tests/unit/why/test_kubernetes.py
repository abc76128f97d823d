"""What `why` makes of what the API server says: every reason that kubelets and controllers give."""

from __future__ import annotations

from typing import Any

import pytest

from gadget._generated import gadget_pb2 as pb
from kubectl_gadget.why.facts import Facts, Kubernetes, PodEvent
from kubectl_gadget.why.findings import Finding
from kubectl_gadget.why.gather import facts_of, read_history
from kubectl_gadget.why.judge import judge
from kubectl_gadget.why.kubernetes import was_stopped
from kubectl_gadget.why.pod import gone_facts, kubernetes_facts, parse_time, quantity, read_events
from tests.unit.traceloop.replies import record, reply
from tests.unit.why.pods import RUNS, Object, at, at_ns, condition, ended, event, pod, waits
from tests.unit.why.stories import Story

ID = "ab12"


def facts(
    given: Object | None, *events: Object, running: bool = False, status: int | None = None, container: str = "app",
    recorded: bool = False, oom: bool = False, **more: Any,
) -> Facts:  # fmt: skip
    """Of a container, recorded if its status is given: it ended at NOW."""
    known = status is not None
    read = read_events(events)
    said = (
        gone_facts(read, container) if given is None else kubernetes_facts(given, container, ID if known else "", read)
    )
    code = said.exit_code if status is None and said.exit_code else 0
    return Facts(
        namespace="shop",
        pod="cart",
        container=container,
        running=running,
        known=known or said.exit_code is not None,
        started_ns=at_ns(-60),
        ended_ns=0 if running else at_ns(0),
        now_ns=at_ns(5),
        status=code << 8 if status is None else status,
        oom=oom,
        kubernetes=said,
        unrecorded="" if known or recorded else "it has not started",
        **more,
    )


def first(*arguments: Any, **options: Any) -> Finding:
    """The likeliest cause."""
    return judge(facts(*arguments, **options))[0]


PULL = (
    'Back-off pulling image "reg.example/x:1": ErrImagePull: failed to pull and unpack image "reg.example/x:1": failed '
    'to resolve reference "reg.example/x:1": reg.example/x:1: not found'
)
NO_PROGRAM = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable "
    'to start container process: error during container init: exec: "/bin/serve": stat /bin/serve: no such file or directory'
)
UNSCHEDULABLE = "0/3 nodes are available: 3 Insufficient cpu. preemption: not eligible."


@pytest.mark.parametrize(
    ("given", "events", "cause", "sentence"),
    [
        (pod(state=waits("ImagePullBackOff", PULL)), [], "image-pull",
         "its image shop/cart:1 cannot be had: reg.example/x:1: not found (ImagePullBackOff)"),
        (pod(state=waits("ImagePullBackOff", 'Back-off pulling image "x:1"')),
         [event("Failed", 'Failed to pull image "x:1": rpc error: code = NotFound desc = "x:1": not found')],
         "image-pull", "its image shop/cart:1 cannot be had: not found (ImagePullBackOff)"),
        (pod(state=waits("ErrImageNeverPull", 'Container image "x:1" is not present with pull policy of Never')), [],
         "image-pull", 'its image shop/cart:1 cannot be had: Container image "x:1" is not present with pull policy of '
         "Never (ErrImageNeverPull)"),
        (pod(state=waits("InvalidImageName", 'Failed to apply default image tag "X:::": couldn\'t parse image name '
                         '"X:::": invalid reference format')), [],
         "image-pull", "its image shop/cart:1 cannot be had: invalid reference format (InvalidImageName)"),
        (pod(state=waits("CreateContainerConfigError", 'configmap "prices" not found')), [], "config-error",
         'it could not be created: configmap "prices" not found (CreateContainerConfigError)'),
        (pod(state=waits("CreateContainerConfigError", "couldn't find key a in Secret shop/keys")), [], "config-error",
         "it could not be created: couldn't find key a in Secret shop/keys (CreateContainerConfigError)"),
        (pod(state=waits("RunContainerError", NO_PROGRAM)), [], "missing-program",
         'its program could not be started: "/bin/serve": stat /bin/serve: no such file or directory'),
        (pod(state=waits("CrashLoopBackOff", "back-off 10s restarting failed container"),
             last=ended(128, reason="StartError", message=NO_PROGRAM), phase="Running"), [], "missing-program",
         'its program could not be started: "/bin/serve": stat /bin/serve: no such file or directory'),
        (pod(state=waits("RunContainerError", 'exec: "/app": permission denied')), [], "not-executable",
         'its program could not be started: "/app": permission denied'),
        (pod(state=waits("RunContainerError", "exec: /app: exec format error")), [], "wrong-format",
         "its program could not be started: /app: exec format error"),
        (pod(state=waits("PostStartHookError", "Exec lifecycle hook failed")), [], "config-error",
         "its postStart hook failed: Exec lifecycle hook failed"),
        (pod(conditions=[condition("PodScheduled", "Unschedulable", UNSCHEDULABLE)]), [], "pending",
         f"no node takes it: {UNSCHEDULABLE}"),
        (pod(conditions=[condition("PodScheduled", "SchedulingGated", "Scheduling is blocked due to gates")]), [],
         "pending", "its scheduling is gated: Scheduling is blocked due to gates"),
        (pod(state=waits("ContainerCreating")),
         [event("FailedMount", 'MountVolume.SetUp failed for volume "keys" : secret "shop-keys" not found', container="")],
         "pending", 'its volume keys cannot be mounted: secret "shop-keys" not found'),
        (pod(state=waits("ContainerCreating")),
         [event("FailedCreatePodSandBox", 'Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup '
                'network for sandbox "6": plugin type="bridge" failed (add): no IP addresses available', container="")],
         "pending", "its network cannot be set up: plugin type=\"bridge\" failed (add): no IP addresses available"),
        (pod(state=waits("ContainerCreating")),
         [event("FailedMount", 'MountVolume.SetUp failed for volume "a" : failed to sync configmap cache', -50, container=""),
          event("Pulling", 'Pulling image "shop/cart:1"', -40)], "pending", "its image shop/cart:1 is being pulled for 45.0s"),
        (pod(state=waits("PodInitializing"), init=[({"name": "migrate"}, {"state": RUNS})]),
         [event("FailedMount", 'MountVolume.SetUp failed for volume "a" : failed to sync configmap cache', -50, container="")],
         "init-container", "it waits for the init container migrate"),
        (pod(state=waits("PodInitializing"), init=[({"name": "migrate"}, {"state": waits("PodInitializing")})]),
         [event("FailedMount", 'MountVolume.SetUp failed for volume "keys" : secret "shop-keys" not found', container="")],
         "pending", 'its volume keys cannot be mounted: secret "shop-keys" not found'),
        (pod(state=waits("ContainerCreating")), [event("Pulling", 'Pulling image "shop/cart:1"', -40)], "pending",
         "its image shop/cart:1 is being pulled for 45.0s"),
        (pod(state=waits("ContainerCreating")), [], "pending", "it has not started yet (ContainerCreating)"),
        (pod(state=waits("PodInitializing"), init=[({"name": "migrate"}, {"state": RUNS})]), [], "init-container",
         "it waits for the init container migrate"),
        (pod(phase="Failed", reason="OutOfcpu", message="Pod was rejected: Node didn't have enough resource: cpu"), [],
         "pending", "its node refused it: Pod was rejected: Node didn't have enough resource: cpu (OutOfcpu)"),
        (pod(state=waits("CrashLoopBackOff"), last=ended(7, message="no price list\n"), phase="Running"), [], "nothing",
         'it exited with 7, and left the message "no price list"'),
        (pod(state=waits("CrashLoopBackOff"), last=ended(0), phase="Running"), [], "clean-exit",
         "it ended by itself with 0, though it should run on"),
        (pod(state=ended(137, reason="OOMKilled"), phase="Failed",
             container={"resources": {"limits": {"memory": "24Mi"}}}), [], "oom",
         "the kernel killed a process of it for want of memory in the container, whose limit is 24 MiB"),
        (pod(phase="Failed", reason="Evicted", state=ended(137),
             message='Usage of EmptyDir volume "cache" exceeds the limit "1Mi". '), [], "killed-eviction",
         'it was evicted: Usage of EmptyDir volume "cache" exceeds the limit "1Mi"'),
        (pod(phase="Failed", reason="DeadlineExceeded", state=ended(143),
             message="Pod was active on the node longer than the specified deadline"), [], "killed-deadline",
         "its pod ran longer than its activeDeadlineSeconds allow, so it was ended"),
    ],
)  # fmt: skip
def test_never_recorded(given: Object, events: list[Object], cause: str, sentence: str) -> None:
    """A pod that never ran, or of which there is no recording: Kubernetes' own reason, shortened to what matters."""
    found = first(given, *events)
    assert (found.cause, found.sentence) == (cause, sentence)


def test_a_volume_that_comes() -> None:
    """That a volume is not there yet, as of most pods that start at once, is no certain reason why a pod waits."""
    failed = event(
        "FailedMount", 'MountVolume.SetUp failed for volume "a" : failed to sync configmap cache', container=""
    )
    assert not first(pod(state=waits("ContainerCreating")), failed).certain


@pytest.mark.parametrize("code", [137, 1])
def test_some_process_was_out_of_memory(code: int) -> None:
    """A runtime calls a container OOMKilled also if that was a child: it is no certain reason of an exit."""
    found = first(pod(phase="Failed", state=ended(code, reason="OOMKilled")))
    assert (found.cause, found.certain) == ("oom", code == 137)
    assert found.sentence == "the kernel killed a process of it for want of memory in the container"


def probes(kind: str, **more: Any) -> Object:
    return {f"{kind}Probe": {"httpGet": {"path": "/health", "port": "web"}, **more},
            "ports": [{"name": "web", "containerPort": 8080}]}  # fmt: skip


DIAL = 'Get "http://10.244.0.5:8080/health": dial tcp 10.244.0.5:8080: connect: connection refused'
TIMEOUT = (
    'Get "http://10.244.0.5:8080/health": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
)


@pytest.mark.parametrize("status", [9, 143 << 8, 0, 1 << 8], ids=["SIGKILL", "143", "0", "1"])
@pytest.mark.parametrize(
    ("kind", "said", "answer"),
    [("liveness", "HTTP probe failed with statuscode: 503", "HTTP status 503"), ("startup", DIAL, "connection refused"),
     ("liveness", TIMEOUT, "no answer in time"), ("liveness", "cat: can't open\n '/tmp/ok'", "cat: can't open '/tmp/ok'")],
)  # fmt: skip
def test_killed_because_of_a_probe(kind: str, said: str, answer: str, status: int) -> None:
    """A container that the kubelet ends because a probe failed: which one, what it asks, and what it got, however it ended."""
    events = [
        event("Unhealthy", f"{kind.title()} probe failed: {said}", -2, count=3),
        event("Killing", f"Container app failed {kind} probe, will be restarted", -1),
    ]
    given = pod(state=RUNS, last=ended(1, container_id=ID), container=probes(kind))
    found = first(given, *events, status=status)
    assert found.sentence == f"the kubelet killed it, as its {kind} probe (GET :8080/health) failed: {answer}"
    assert found.cause == ("slow-start" if kind == "startup" else "killed-probe") and found.certain and not found.benign
    # neither that of another container, nor one of an hour ago
    for other in ({"container": "sidecar"}, {"seconds": -3600}):
        killing = event("Killing", f"Container app failed {kind} probe, will be restarted", **{"seconds": -1, **other})
        then = first(given, events[0], killing, status=status)
        assert not (then.cause in ("killed-probe", "slow-start") and then.certain)


STOPPING = event("Killing", "Stopping container app", -30)


@pytest.mark.parametrize("status", [15, 9, 143 << 8, 137 << 8])
@pytest.mark.parametrize(
    ("given", "events"),
    [(pod(state=RUNS, deleting=True), [STOPPING]), (None, [STOPPING]), (None, []),
     (pod(phase="Succeeded", state=ended(143, container_id=ID)), [])],
    ids=["deleted", "gone", "gone, without events", "done"],
)  # fmt: skip
def test_asked_to_end(given: Object | None, events: list[Object], status: int) -> None:
    """A pod that is deleted, scaled down, replaced or done has nothing wrong with it, however its containers end by that."""
    found = facts(given, *events, status=status)
    assert was_stopped(found)


@pytest.mark.parametrize(
    ("given", "events", "options"),
    [
        (pod(state=RUNS), [], {"status": 9}),
        (pod(state=RUNS), [STOPPING], {"status": 9}),
        (None, [], {"status": 1 << 8}),
        (None, [], {"status": 9, "oom": True}),
        (None, [event("Killing", "Container app failed liveness probe, will be restarted", -1)], {"status": 9}),
    ],
    ids=["there", "was stopped once", "exited", "OOM", "probe"],
)
def test_not_asked_to_end(given: Object | None, events: list[Object], options: dict[str, Any]) -> None:
    """An end that nobody asked for stays bad, also if the pod was deleted later."""
    assert not was_stopped(facts(given, *events, **options))


def _deleted(seconds: float) -> Object:
    """A pod that was asked to go within 30 s, and whose run had ended before."""
    given = pod(state=waits("CrashLoopBackOff"), last=ended(137, container_id=ID), deleting=True)
    given["metadata"] |= {"deletionTimestamp": at(seconds + 30), "deletionGracePeriodSeconds": 30}
    return given


NEXT, THIS = ended(137, container_id="ef56"), ended(137, container_id=ID)
DISRUPTED = condition("DisruptionTarget", "TerminationByKubelet", status="True", since=1800)


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (pod(phase="Succeeded", state=ended(0, container_id="ef56"), last=ended(1, container_id=ID)), 1 << 8),
        (_deleted(1800), 9),
        (pod(phase="Failed", reason="Evicted", state=NEXT, last=THIS), 9),
        (pod(phase="Failed", reason="Evicted", state=THIS, conditions=[DISRUPTED]), 9),
        (pod(phase="Failed", reason="DeadlineExceeded", state=NEXT, last=THIS), 9),
    ],
    ids=[
        "done by its next run",
        "deleted later",
        "evicted in its next run",
        "evicted later",
        "deadline of the next run",
    ],
)
def test_what_befell_its_pod_later(given: Object, status: int) -> None:
    """What happened to a pod after a run had ended, or in the next one, is not told as why it ended, nor hides it."""
    found = facts(given, status=status)
    assert not was_stopped(found)
    assert judge(found)[0].cause in ("killed", "nothing") and not judge(found)[0].benign


def test_deleted_and_ended_in_its_own_way() -> None:
    """A program that ends by SIGTERM with a status of its own was stopped if its pod was deleted, and else may have failed."""
    story = Story().signal(15, 0, ()).exits(1)
    assert not judge(story.facts())[0].benign
    assert was_stopped(story.facts(kubernetes=Kubernetes(deleted=True)))


def test_deleted_in_time() -> None:
    """A run that was killed when its pod was asked to go ended by that."""
    assert was_stopped(facts(_deleted(-20), status=9))
    assert judge(facts(_deleted(-20), status=9))[0].benign


@pytest.mark.parametrize(
    ("late", "started", "cause"),
    [(0, 1, "slow-start"), (3600, 1, "killed-probe"), (0, 0, "killed-probe")],
    ids=["from its start", "from an hour later", "older agent"],
)
def test_recorded_from_its_start(late: int, started: int, cause: str) -> None:
    """That it never listened is only said of a container that was recorded from its start."""
    began = 1_000_000_000_000
    item = pb.TraceloopItem(status=9, known=True, started_ns=began, recorded_ns=started and began + late * 10**9,
                            ended_ns=began + 9 * 10**12)  # fmt: skip
    begun, end = record(1, "KIND_EXEC", text=b"/app/cart", result=1), record(2, "KIND_PROCESS_EXIT", result=9)
    begun["count"], end["count"] = 0, 1
    replies = [reply(begun, end, item=item)]
    killing = PodEvent(0, "Killing", "Container app failed liveness probe, will be restarted")
    said = Kubernetes(probes={"liveness": "GET :8080/"}, events=(killing,))
    found = judge(facts_of("node-a", item, read_history(replies), kubernetes=said))
    assert found[0].cause == cause
    left_out = facts_of("node-a", item, read_history(replies), kubernetes=said, left_out=1)
    assert judge(left_out)[0].cause == "killed-probe"


def test_the_first_process_of_an_old_container() -> None:
    """Of a container that is older than its recording, a probe's program is not taken for its own."""
    calls = [
        record(1, name="open", text=b"/etc/cart.yaml", args=[1], result=-2, pid=100, tid=100),
        record(2, "KIND_EXEC", text=b"/bin/cat", result=1999, pid=200, tid=200),
        record(3, "KIND_PROCESS_EXIT", pid=200, tid=200),
        record(4, "KIND_PROCESS_EXIT", result=1 << 8, pid=100, tid=100),
    ]
    for count, each in enumerate(calls):
        each["count"] = count
    item = pb.TraceloopItem(status=1 << 8, known=True, started_ns=1, recorded_ns=3600 * 10**9, ended_ns=3601 * 10**9)
    history = read_history([reply(*calls, item=item)])
    assert history.main == 100 and history.failures[0].subject == "/etc/cart.yaml"


@pytest.mark.parametrize(
    ("given", "events", "sentence", "benign"),
    [
        (None, [event("Evicted", "The node was low on resource: memory. Threshold quantity: 50Mi, available: 9Mi. ", -1,
                      container="")],
         "it was evicted: The node was low on resource: memory. Threshold quantity: 50Mi, available: 9Mi", False),
        (None, [event("TaintManagerEviction", "Marking for deletion Pod shop/cart", -5, container="")],
         "it was evicted, as it does not tolerate a taint of its node", False),
        (None, [event("Preempted", "Preempted by pod 1 on node node-a", -5, container="")],
         "it was evicted for a pod of higher priority: Preempted by pod 1 on node node-a", False),
        (pod(state=RUNS, deleting=True,
             conditions=[condition("DisruptionTarget", "EvictionByEvictionAPI", "Eviction API: evicting", status="True")]),
         [STOPPING], "it was evicted, as a drain of its node does", True),
        (pod(phase="Failed", reason="Terminated", state=ended(143, container_id=ID),
             message="Pod was terminated in response to imminent node shutdown."), [],
         "its node was shut down: Pod was terminated in response to imminent node shutdown", True),
    ],
)  # fmt: skip
def test_evicted(given: Object | None, events: list[Object], sentence: str, benign: bool) -> None:
    """A pod that Kubernetes ended for the sake of others, or of its node: why, and whether that was on purpose."""
    found = first(given, *events, status=9)
    assert (found.cause, found.sentence, found.benign) == ("killed-eviction", sentence, benign)


@pytest.mark.parametrize("reason", ["Evicted", "DeadlineExceeded"])
@pytest.mark.parametrize(("status", "oom"), [(1 << 8, False), (9, True)], ids=["exited", "OOM"])
def test_a_crash_before_it_was_evicted(reason: str, status: int, oom: bool) -> None:
    """A pod that crashed, and was evicted later, is not told to have crashed for that."""
    given = pod(phase="Failed", reason=reason, message="The node was low on resource: memory.", state=ended(137))
    assert not first(given, status=status, oom=oom).cause.startswith(("killed-eviction", "killed-deadline"))


def test_killed_by_nobody_known() -> None:
    """137 with reason Error and no word of memory is a SIGKILL, and nobody is made up who sent it."""
    found = judge(facts(pod(state=waits("CrashLoopBackOff"), last=ended(137), phase="Running")))
    assert [each.sentence for each in found] == ["it exited with 137 (as one that SIGKILL ended does)"]
    assert not found[0].certain


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("Readiness probe failed: HTTP probe failed with statuscode: 503",
         "it is not ready: its readiness probe (GET :8080/health) failed: HTTP status 503, 7 times"),
        ("Readiness probe failed: ", "it is not ready: its readiness probe (GET :8080/health) failed, 7 times"),
        ("Readiness probe errored and resulted in unknown state: rpc error: no such container",
         "it is not ready: its readiness probe (GET :8080/health) failed: rpc error: no such container, 7 times"),
        ("", "it is not ready: its readiness probe (GET :8080/health) has not succeeded"),
    ],
)  # fmt: skip
def test_not_ready(said: str, sentence: str) -> None:
    """A pod that runs and is not ready: what its probe asks, and what it got."""
    events = [event("Unhealthy", said, -1, count=7)] if said else []
    found = first(pod(state=RUNS, container=probes("readiness")), *events, running=True)
    assert (found.cause, found.sentence) == ("not-ready", sentence)
    assert first(pod(state=RUNS, ready=True, container=probes("readiness")), *events, running=True).cause == "nothing"


@pytest.mark.parametrize(("started", "failed"), [(True, "readiness"), (None, "readiness"), (False, "startup")])
def test_which_probe(started: bool | None, failed: str) -> None:
    """A pod that is not ready is so by the probe that fails now, and not by one that has succeeded since."""
    given = pod(state=RUNS, container={**probes("startup"), **probes("readiness"), **probes("liveness")})
    given["status"]["containerStatuses"][0] |= {} if started is None else {"started": started}
    events = [event("Unhealthy", "Startup probe failed: no", -300), event("Unhealthy", "Readiness probe failed: no", -9),
              event("Unhealthy", "Liveness probe failed: no", -8)]  # fmt: skip
    assert f"its {failed} probe" in first(given, *events, running=True).sentence


def test_gates_and_nodes() -> None:
    """A pod that waits for a readiness gate, or whose node is gone, says that."""
    gate = condition("Ready", "ReadinessGatesNotReady", 'the status of pod readiness gate "lb" is not "True"')
    found = first(pod(state=RUNS, ready=True, conditions=[gate]), running=True)
    assert found.sentence == 'its pod is not ready: the status of pod readiness gate "lb" is not "True"'
    lost = event("NodeNotReady", "Node is not ready", container="")
    assert first(pod(state=RUNS, ready=True), lost, running=True).cause == "node-lost"


def test_mounts() -> None:
    """What lies at a path of a container is told by the name that it has in the cluster."""
    volumes: dict[str, Object] = {
        "a": {"configMap": {"name": "cart-config"}},
        "b": {"secret": {"secretName": "keys"}},
        "c": {"persistentVolumeClaim": {"claimName": "data"}},
        "d": {"emptyDir": {}},
        "e": {"hostPath": {"path": "/var/log"}},
        "f": {"projected": {"sources": [{"serviceAccountToken": {}}, {"configMap": {"name": "kube-root-ca.crt"}}]}},
        "g": {"projected": {"sources": [{"configMap": {"name": "x"}}, {"secret": {"name": "y"}}]}},
        "h": {"downwardAPI": {}},
        "i": {"csi": {"driver": "s3.example"}},
    }
    given = pod(
        spec={"volumes": [{"name": name, **volume} for name, volume in volumes.items()]},
        container={"volumeMounts": [*({"name": name, "mountPath": f"/{name}"} for name in volumes),
                                    {"name": "a", "mountPath": "/one", "subPath": "x.yaml", "readOnly": True}]},
    )  # fmt: skip
    assert kubernetes_facts(given, "app").mounts == {
        "/a": "ConfigMap cart-config",
        "/b": "Secret keys",
        "/c": "PersistentVolumeClaim data",
        "/d": "an emptyDir",
        "/e": "the node's /var/log",
        "/f": "the service account's token",
        "/g": "ConfigMap x and Secret y",
        "/h": "fields of the pod",
        "/i": "a volume of s3.example",
        "/one": "ConfigMap cart-config, x.yaml of it, read-only",
    }


def test_probes() -> None:
    """What a probe asks is told in a few words, a port by its number."""
    kinds: list[tuple[Object, str]] = [
        ({"httpGet": {"port": "web", "path": "/x"}}, "GET :8080/x"),
        ({"httpGet": {"port": 80}}, "GET :80/"),
        ({"tcpSocket": {"port": 6379}}, "connect to :6379"),
        ({"grpc": {"port": 9000}}, "gRPC :9000"),
        ({"exec": {"command": ["cat", "/ok"]}}, "cat /ok"),
    ]
    for probe, text in kinds:
        given = pod(container={"livenessProbe": probe, "ports": [{"name": "web", "containerPort": 8080}]})
        assert kubernetes_facts(given, "app").probes == {"liveness": text}


@pytest.mark.parametrize(
    ("text", "number"),
    [("64Mi", 64 << 20), ("1G", 10**9), ("128974848", 128974848), ("1e3", 1000), ("1.5Gi", 3 << 29), ("500m", 0),
     ("", 0), (None, 0), ("many", 0), ("9" * 5000, 0), ("1Qi", 0)],
)  # fmt: skip
def test_quantities(text: str | None, number: int) -> None:
    """Limits are read as Kubernetes writes them; nonsense is no limit."""
    assert quantity(text) == number


def test_times() -> None:
    """Times with and without fractions are read; nonsense is no time."""
    assert parse_time(at(0)) == at_ns(0)
    assert parse_time("2026-01-01T12:00:00.250000Z") == at_ns(0) + 250_000_000
    assert (parse_time("yesterday"), parse_time(None), parse_time({})) == (0, 0, 0)


def test_which_run() -> None:
    """Of a run before the newest it is not said what is true of the newest alone."""
    given = pod(state=waits("CrashLoopBackOff"), last=ended(137, reason="OOMKilled", container_id=ID), restarts=4,
                container_id=ID)  # fmt: skip
    assert kubernetes_facts(given, "app", ID).terminated == "OOMKilled"
    assert kubernetes_facts(given, "app", "older").terminated == ""
    assert kubernetes_facts(given, "app", "older").restarts == 4


def test_events_are_bounded_and_damaged_ones_are_left_out() -> None:
    """However many events a pod has, and whatever is in them, the newest are looked at."""
    items: list[Any] = [event("Unhealthy", f"no {number}", number) for number in range(600)]
    items += [None, {"involvedObject": 3}, {"count": "x"}, event("Killing", "of another", 999, uid="another")]
    read = read_events(items, "uid-cart")
    assert len(read) == 50 and read[-1].message == "no 599" and read[0].time_ns < read[-1].time_ns
