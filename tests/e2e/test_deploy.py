from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from kubectl_gadget.cluster.manifests import NAMESPACE
from tests.conftest import wait_until
from tests.e2e.conftest import (
    BUSYBOX,
    IMAGE,
    OWN_CLUSTER,
    Namespace,
    Stream,
    gadget,
    kubectl,
    nodes,
    objects,
    wait_for_nodes,
)
from tests.loaded import bpf_programs, kernel_objects

OWN_PLACE = "gadget-of-its-own"
KINDS = "namespaces,daemonsets,serviceaccounts,clusterroles,clusterrolebindings,pods"


@pytest.fixture
def own_place() -> Iterator[str]:
    """A namespace for agents beside those of other tests."""
    yield OWN_PLACE
    gadget("undeploy", f"--gadget-namespace={OWN_PLACE}")


@pytest.fixture
def strangers_place() -> Iterator[str]:
    """A namespace for agents that somebody else has made, and that undeploy leaves there."""
    kubectl("create", "namespace", OWN_PLACE)
    yield OWN_PLACE
    gadget("undeploy", f"--gadget-namespace={OWN_PLACE}")
    kubectl("delete", "namespace", OWN_PLACE, "--ignore-not-found")


def made_here(namespace: str) -> list[str]:
    """What is left of agents in a namespace."""
    found = objects(KINDS, "--all-namespaces", "--selector=app.kubernetes.io/managed-by=kubectl-gadget")
    found += objects("pods", f"--namespace={namespace}")
    return [f"{item['kind']} {item['metadata']['name']}" for item in found if namespace in str(item["metadata"])]


def programs(namespace: str = NAMESPACE) -> set[int]:
    """Ids of the BPF programs that the agents of a namespace hold, as far as they can be told: our own cluster's are in
    a pid namespace of their own, which is ours.
    """
    if not OWN_CLUSTER:
        return set()
    pods = [each["metadata"]["uid"] for each in objects("pods", f"--namespace={namespace}")]
    held = set[tuple[str, int]]()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            cgroups = (process / "cgroup").read_text()
            held |= kernel_objects(int(process.name)) if any(uid in cgroups for uid in pods) else set()
    return {number for kind, number in held if kind == "prog"}


LOOK = {
    "name": "look", "image": BUSYBOX, "command": ["/bin/sleep", "3600"],
    "volumeMounts": [{"name": name, "mountPath": path} for name, path in (("pins", "/pins"), ("state", "/state"))],
}  # fmt: skip
HOST = [
    {"name": "pins", "hostPath": {"path": "/sys/fs/bpf"}},
    {"name": "state", "hostPath": {"path": "/var/lib/gadget"}},
]


def left_on(node: str) -> str:
    """The files that the recorders keep on a node, by a pod that looks."""
    spec = {"nodeName": node, "containers": [LOOK], "volumes": HOST, "restartPolicy": "Never"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "look", "namespace": "kube-system"}, "spec": spec}
    kubectl("apply", "--filename=-", input=json.dumps(pod))
    try:
        kubectl("wait", "--for=condition=Ready", "--namespace=kube-system", "pod/look", "--timeout=60s")
        # not what the kernel itself puts into a bpffs, nor the pins of test_least_privilege_is_enough
        others = ["!", "-name", "*.debug", "!", "-path", "/pins/least*"]
        found = ["find", "/pins", "/state", "-mindepth", "1", *others]
        return kubectl("exec", "--namespace=kube-system", "look", "--", "busybox", *found)
    finally:
        kubectl("delete", "pod", "look", "--namespace=kube-system", "--grace-period=0", "--force")


def test_nothing_is_left_on_nodes(deployed: None, make_namespace: Callable[[str], Namespace]) -> None:
    """Undeploy ends the recorders too: no pin and no file of theirs is left on any node."""
    shop = make_namespace("recorded")
    for index, node in enumerate(nodes()):
        shop.pod(f"cart-{index}", node)
    assert all("ring-" in left_on(node) for node in nodes())
    during = programs()
    removed = gadget("undeploy")
    try:
        assert (removed.returncode, removed.stderr) == (0, "")
        assert {node: left_on(node) for node in nodes()} == dict.fromkeys(nodes(), "")
        assert bool(during) == OWN_CLUSTER
        wait_until(lambda: not during & bpf_programs(), "the end of the recorders")
    finally:
        assert gadget("deploy", "--image", IMAGE, "--privileged").returncode == 0


#: The profile of containerd 1.6 knows neither CAP_BPF nor CAP_PERFMON.
LEAST = ["--least-privilege", "--seccomp=Unconfined"]
#: Gadgets that show something of any pod that works.
SEEN = ("execsnoop", "exitsnoop", "opensnoop", "tcpconnect", "tcptracer")


@pytest.mark.parametrize("options", [[], ["--privileged"], LEAST])
def test_from_deploy_to_undeploy(
    own_place: str, options: list[str], make_namespace: Callable[[str], Namespace], start_stream: Callable[..., Stream]
) -> None:
    """I deploy, see what my pods do, undeploy, and nothing is left: no object, no pod, no program in a kernel."""
    where = f"--gadget-namespace={own_place}"
    # the recorders are one for a machine, and those of the other tests' agents are there
    done = gadget("deploy", "--image", IMAGE, where, "--traceloop=off", "--no-flows", "--no-syscalls", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(nodes())} of {len(nodes())} nodes ready" in done.stdout
    assert all(f"  {node}  ready" in done.stdout for node in nodes())
    during = programs(own_place)
    assert during or not OWN_CLUSTER
    shop = make_namespace(f"deployed-{len(options)}")
    pods = {node: (shop, shop.pod(f"cart-{index}", node)) for index, node in enumerate(nodes())}
    stream = start_stream("execsnoop", f"--namespace={shop.name}", where)
    wait_for_nodes(stream, pods)
    _, said = stream.finish()
    assert "nothing lost" in said
    removed = gadget("undeploy", where)
    assert removed.returncode == 0, removed.stderr
    assert made_here(own_place) == []
    wait_until(lambda: not during & bpf_programs(), "the programs of the agents to be gone")


def test_least_privilege_is_enough(
    deployed: None, own_place: str, make_namespace: Callable[[str], Namespace], start_stream: Callable[..., Stream]
) -> None:
    """With --least-privilege every gadget and every recorder works, as unprivileged as it can be."""
    where = f"--gadget-namespace={own_place}"
    shown = gadget("deploy", "--image", IMAGE, *LEAST, "--print-only", where).stdout
    assert "privileged: true" not in shown and "hostPID" not in shown
    # beside the recorders of the other tests' agents
    kubectl("create", "namespace", own_place)
    kubectl("apply", "--filename=-", input=shown.replace("- --log-level=info", "- --bpffs=/sys/fs/bpf/least"))
    kubectl("rollout", "status", "daemonset/gadget", f"--namespace={own_place}", "--timeout=60s")
    shop = make_namespace("least")
    pods = {node: (shop, shop.pod(f"cart-{index}", node)) for index, node in enumerate(nodes())}
    work = "/bin/true; busybox wget -q -O /dev/null http://$KUBERNETES_SERVICE_HOST:443/ 2>/dev/null; true"
    for each in json.loads(f"[{','.join(gadget('list', '-o', 'json').stdout.splitlines())}]"):
        if each["name"] in SEEN:
            stream = start_stream(each["name"], where, "--namespace=least")
            wait_for_nodes(stream, pods, work)
            _, said = stream.finish()
        else:
            said = gadget(*each["name"].split(), where, "--namespace=least", "--timeout=1s").stderr
        assert f"from {len(pods)} nodes" in said and "nothing lost" in said, (each["name"], said)
    rows = [json.loads(line) for line in gadget("status", where, "-o", "json").stdout.splitlines()]
    assert [row["node"] for row in rows] == sorted(pods) and all(" MiB" in row["traceloop"] for row in rows), rows
    assert all(int(row["flows"].split()[0]) > 0 for row in rows), rows
    assert "execve(" in gadget("traceloop", "show", "cart-0", where, "--namespace=least").stdout


def test_why_a_node_is_not_ready(own_place: str) -> None:
    """When agents do not come up I am told why for each node, and deploy does not wait in vain."""
    done = gadget(
        "deploy", "--image=localhost/nowhere:1", "--image-pull-policy=Never", f"--gadget-namespace={own_place}"
    )
    assert done.returncode == 1
    for node in nodes():
        line = next(line for line in done.stdout.splitlines() if line.startswith(f"  {node} "))
        assert "not ready" in line and "ErrImageNeverPull" in line and "localhost/nowhere:1" in line
    assert done.stderr.startswith(f"error: 0 of {len(nodes())} nodes ready")
    stream = gadget("execsnoop", f"--gadget-namespace={own_place}")
    assert stream.returncode == 1 and "no agent (pod gadget-" in stream.stderr


def test_agents_that_end(strangers_place: str) -> None:
    """When an agent ends at once I see its own last words."""
    where = f"--gadget-namespace={strangers_place}"
    manifest = gadget("deploy", "--image", IMAGE, "--log-level=debug", where, "--print-only").stdout
    kubectl("apply", "--filename=-", input=manifest.replace("--host-root=/host", "--host-root=/nowhere"))
    last = "--output=jsonpath={.items[0].status.containerStatuses[0].lastState.terminated.exitCode}"
    wait_until(lambda: kubectl("get", "pods", f"--namespace={strangers_place}", last), "an agent's end", 60)
    stream = gadget("execsnoop", where)
    assert stream.returncode == 1 and "ended with exit code 1" in stream.stderr


def test_security_policy(strangers_place: str) -> None:
    """Where a policy of the cluster forbids such pods I am told in its words, at once."""
    kubectl("label", "namespace", strangers_place, "pod-security.kubernetes.io/enforce=baseline")
    done = gadget("deploy", "--image", IMAGE, f"--gadget-namespace={strangers_place}")
    assert done.returncode == 1
    assert done.stderr.startswith("error: the cluster makes no pods: ") and done.stderr.count("\n") == 1
    assert 'violates PodSecurity "baseline' in done.stderr and "hostPath volumes" in done.stderr


def test_no_btf(strangers_place: str) -> None:
    """Where the nodes' kernels have no BTF, deploy says so for each node."""
    deploy = [
        "deploy",
        "--image",
        IMAGE,
        f"--gadget-namespace={strangers_place}",
        "--traceloop=off",
        "--no-flows",
        "--no-syscalls",
    ]
    daemon_set = list(yaml.safe_load_all(gadget(*deploy, "--print-only").stdout))[-1]
    pod = daemon_set["spec"]["template"]["spec"]
    hidden = {"name": "hidden", "emptyDir": {}}  # in the place of /sys/kernel/btf; deploy leaves what others added
    pod["volumes"].append(hidden)
    pod["containers"][0]["volumeMounts"].append({"name": "hidden", "mountPath": "/sys/kernel/btf"})
    kubectl("apply", "--server-side", "--filename=-", input=json.dumps(daemon_set))
    done = gadget(*deploy)
    assert done.returncode == 1 and done.stderr.startswith(f"error: 0 of {len(nodes())} nodes ready")
    assert done.stdout.count("has no BTF (/sys/kernel/btf/vmlinux): this machine cannot be traced") == len(nodes())


@pytest.mark.skipif(not OWN_CLUSTER, reason="labels of other clusters' nodes are left alone")
def test_node_joins(
    own_place: str, make_namespace: Callable[[str], Namespace], start_stream: Callable[..., Stream]
) -> None:
    """A node that joins while I watch is watched from then on, and I am told since when."""
    first, second = nodes()[:2]
    where, label = f"--gadget-namespace={own_place}", own_place
    deploy = [
        "deploy",
        "--image",
        IMAGE,
        where,
        "--traceloop=off",
        "--no-flows",
        "--no-syscalls",
        f"--node-selector={label}=yes",
    ]
    kubectl("label", "node", first, f"{label}=yes")
    try:
        done = gadget(*deploy)
        assert done.returncode == 0 and "1 of 1 node ready" in done.stdout, done.stdout + done.stderr
        shop = make_namespace("joined")
        pods = {node: (shop, shop.pod(f"cart-{index}", node)) for index, node in enumerate((first, second))}
        stream = start_stream("execsnoop", "--namespace=joined", where)
        wait_for_nodes(stream, {first: pods[first]})
        kubectl("label", "node", second, f"{label}=yes")
        wait_for_nodes(stream, pods)
        events, said = stream.finish()
    finally:
        kubectl("label", "node", first, second, f"{label}-")
    assert {event["node"] for event in events} == {first, second}
    assert f"{second}: joined; seen only from " in said
    assert "nothing lost of what was watched" in said and "from 2 nodes" in said


def test_nothing_there() -> None:
    """Without agents I am told to deploy some, or to trace this machine."""
    done = gadget("execsnoop", "--gadget-namespace=empty")
    wanted = "error: no agents in namespace empty: run `kubectl gadget deploy`, or trace this machine with --local\n"
    assert (done.returncode, done.stderr) == (1, wanted)
    assert gadget("undeploy", "--gadget-namespace=empty").returncode == 1


def test_print_only() -> None:
    """--print-only gives manifests that the cluster accepts, and changes nothing."""
    before = objects(KINDS, "--all-namespaces")
    shown = gadget("deploy", "--image", IMAGE, "--print-only", "--gadget-namespace=printed").stdout
    kubectl("apply", "--dry-run=client", "--filename=-", input=shown)
    assert IMAGE in shown and len(objects(KINDS, "--all-namespaces")) == len(before)
