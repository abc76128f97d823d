"""deploy and undeploy, on an API server that says what the test wants."""

from __future__ import annotations

import base64
import os
import pty
import re
import select
import stat
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import yaml

from gadget.errors import GadgetError, Unreachable
from gadget.kube.kubeconfig import ClusterFlags
from gadget.standing import from_toml
from kubectl_gadget.cluster import manifests
from kubectl_gadget.cluster.definitions import config_map
from kubectl_gadget.cluster.deploy import deploy
from kubectl_gadget.cluster.options import ClusterOptions as Chosen
from kubectl_gadget.cluster.remedies import Remedies
from kubectl_gadget.cluster.undeploy import undeploy
from tests.cluster_api import DAEMON_SET, EVENTS, NAMESPACE, PODS, Cluster, agent_pod, failed_create, serve_cluster
from tests.conftest import CLI, run_cli

QUOTA = f"{NAMESPACE}/resourcequotas/gadget-critical-pods"
SETTINGS = manifests.Settings("agent:1")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with serve_cluster() as running:
        yield running


def chosen(cluster: Cluster) -> Chosen:
    return Chosen(ClusterFlags(server=cluster.url, kubeconfig="/dev/null"), "gadget", ())


def have(cluster: Cluster, *pods: dict) -> None:
    """Let the nodes have these agents, and no more."""
    cluster.wanted, cluster.lists[PODS] = len(pods), list(pods)


def test_what_deploy_did(cluster: Cluster, capsys) -> None:
    """I am told whether deploy made the agents, changed them, or found them as I want them."""
    have(cluster, agent_pod("node-a", ready=True))
    changed = manifests.Settings("agent:2")
    told = []
    for settings in (SETTINGS, SETTINGS, changed):
        deploy(chosen(cluster), settings, 5)
        told.append(capsys.readouterr().out.splitlines()[0])
    assert told == [f"gadget  DaemonSet {what} in namespace gadget" for what in ("created", "unchanged", "updated")]


def test_several_nodes(cluster: Cluster, capsys) -> None:
    """Of each node I am told how its agent is: why it waits in vain, and the last words of one that ends."""
    crashed = agent_pod("node-b", reason="CrashLoopBackOff", message="back-off 10s")
    unschedulable = agent_pod("node-c", reason="x")
    unschedulable["status"] = {
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no cpu"}],
    }
    pull = agent_pod("node-d", reason="ImagePullBackOff", message="Back-off\npulling \x1b[31m")
    have(cluster, agent_pod("node-a", ready=True), crashed, unschedulable, pull)
    cluster.logs["gadget-node-b"] = 'one\nerror: "no BTF"\n\x1b]0;title\n'
    with pytest.raises(Unreachable, match="1 of 4 nodes ready in "):
        deploy(chosen(cluster), SETTINGS, 20)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  node-a  ready",
        "  node-b  not ready  pod gadget-node-b is CrashLoopBackOff: its agent ended with exit code 1",
        "            one",
        '            error: "no BTF"',
        "            \\x1b]0;title",
        "  node-c  not ready  pod gadget-node-c is Unschedulable: no cpu",
        "  node-d  not ready  pod gadget-node-d is ImagePullBackOff: Back-off\\npulling \\x1b[31m",
    ]


def test_first_exit_is_not_the_end(cluster: Cluster, capsys) -> None:
    """An agent that ends once, and is started anew at once, is waited for."""
    looks = iter([agent_pod("node-a", terminated={"exitCode": 1})] * 3)
    have(cluster, agent_pod("node-a", ready=True))

    def looked() -> None:
        have(cluster, next(looks, agent_pod("node-a", ready=True)))

    cluster.looked = looked
    deploy(chosen(cluster), SETTINGS, 20)
    assert "1 of 1 node ready" in capsys.readouterr().out


def test_refused_by_policy(cluster: Cluster) -> None:
    """If the cluster makes no pods I am told why by the newest event, and deploy does not wait in vain."""
    cluster.wanted = 2

    def looked() -> None:
        cluster.lists[EVENTS] = [
            failed_create("violates PodSecurity", at="2026-01-01T00:00:09Z", name="b"),
            failed_create("exceeded quota", at="2026-01-01T00:00:08Z", name="a"),
            failed_create("of another", of="uid-other", at="2026-01-01T00:00:10Z", name="c"),
        ][::-1]

    cluster.looked = looked
    with pytest.raises(GadgetError, match="the cluster makes no pods: violates PodSecurity"):
        deploy(chosen(cluster), SETTINGS, 20, refused_seconds=0.5)


def test_old_refusals_do_not_count(cluster: Cluster, capsys) -> None:
    """What the cluster refused an hour ago, or another DaemonSet, does not make deploy fail."""
    have(cluster, agent_pod("node-a", ready=True))
    deploy(chosen(cluster), SETTINGS, 5, refused_seconds=0.0)
    cluster.lists[EVENTS] = [failed_create("exceeded quota"), failed_create("of another", of="uid-other", name="f")]
    looks = iter([[]] * 4)
    cluster.looked = lambda: cluster.lists.update({PODS: next(looks, [agent_pod("node-a", ready=True)])})
    deploy(chosen(cluster), SETTINGS, 5, refused_seconds=0.0)
    assert "1 of 1 node ready" in capsys.readouterr().out


def test_refused_as_before(cluster: Cluster) -> None:
    """If nothing came of it in time, and all that there is to say is old, I am told that."""
    cluster.wanted = 1
    cluster.objects[DAEMON_SET] = {"metadata": {"generation": 1, "uid": "uid-daemonset", "namespace": "gadget"}}
    cluster.lists[EVENTS] = [failed_create("exceeded quota")]
    with pytest.raises(GadgetError, match="the cluster makes no pods: exceeded quota"):
        deploy(chosen(cluster), SETTINGS, 0.5)


def test_some_are_refused(cluster: Cluster, capsys) -> None:
    """If the cluster makes only some of the pods I see those, and why there are no more."""
    have(cluster, agent_pod("node-a", ready=True))
    cluster.wanted = 3
    cluster.lists[EVENTS] = [failed_create("exceeded quota")]
    with pytest.raises(Unreachable, match=r"1 of 3 nodes ready in .*: the cluster makes no more pods: exceeded quota"):
        deploy(chosen(cluster), SETTINGS, 0.5)
    assert "  node-a  ready" in capsys.readouterr().out


def test_no_node_fits(cluster: Cluster) -> None:
    """If no node is meant to have an agent I am told what that comes from."""
    with pytest.raises(Unreachable, match=r"0 of 0 nodes ready .*: no node .* --node-selector and --toleration"):
        deploy(chosen(cluster), SETTINGS, 20)


def test_progress_on_a_terminal(cluster: Cluster) -> None:
    """While deploy waits I see on a terminal a line for each node that is not ready, and none of them in the end."""
    waits = agent_pod("node-b", reason="ContainerCreating")
    stages = iter(
        [[agent_pod("node-a", reason="ContainerCreating"), waits]] * 2 + [[agent_pod("node-a", ready=True), waits]] * 2
    )
    cluster.wanted = 2
    done = [agent_pod(node, ready=True) for node in ("node-a", "node-b")]
    cluster.looked = lambda: cluster.lists.update({PODS: next(stages, done)})
    terminal, end = pty.openpty()
    command = [str(CLI), "deploy", "--image=agent:1", f"--server={cluster.url}", "--kubeconfig=/dev/null"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=end, text=True) as process:
        os.close(end)
        seen = b""
        while select.select([terminal], [], [], 30)[0]:
            try:
                seen += os.read(terminal, 1 << 16)
            except OSError:
                break
        out, _ = process.communicate()
    os.close(terminal)
    assert process.returncode == 0, (out, seen)
    screens = re.split(r"\x1b\[\d*A\r\x1b\[J|\r\x1b\[J", seen.decode().replace("\x1b[K", "").replace("\r\n", "\n"))
    both = [
        "0 of 2 nodes ready",
        *(f"  {node}  pod gadget-{node} is ContainerCreating" for node in ("node-a", "node-b")),
    ]
    screens = [screen.splitlines() for screen in screens]
    assert both in screens
    assert ["1 of 2 nodes ready", both[2]] in screens
    assert screens[-1] == []
    assert "2 of 2 nodes ready in " in out


SECRET = f"{NAMESPACE}/secrets/gadget-k8s-audit"
SERVICE = f"{NAMESPACE}/services/gadget-k8s-audit"


def receiver_pod(**state: object) -> dict:
    pod = agent_pod("node-a", **state)  # its own node, which has an agent, too
    pod["metadata"] |= {"name": "gadget-k8s-audit-x", "labels": {"app.kubernetes.io/component": "k8s-audit"}}
    return pod


def have_receiver(cluster: Cluster, **state: object) -> None:
    have(cluster, agent_pod("node-a", ready=True), receiver_pod(**state))
    cluster.wanted = 1

    def looked() -> None:
        cluster.objects.get(SERVICE, {}).get("spec", {}).setdefault("clusterIP", "10.96.0.7")

    cluster.looked = looked


def test_audit_files(cluster: Cluster, capsys, tmp_path: Path) -> None:
    """Deploy --k8s-audit writes what the API server needs, for me alone, says what to do, and keeps its keys the next time."""
    have_receiver(cluster, ready=True)
    deploy(chosen(cluster), SETTINGS, 20, audit=tmp_path / "audit")
    out = capsys.readouterr().out
    assert "  k8s-audit  ready" in out and "1 of 1 node ready" in out
    for flag, name in (("--audit-webhook-config-file", "audit-webhook"), ("--audit-policy-file", "audit-policy")):
        assert f"  {flag}=/etc/kubernetes/gadget/{name}.yaml\n" in out
    assert max(map(len, out.split("Audit events")[1].replace(str(tmp_path), "").splitlines())) <= 80
    path = tmp_path / "audit/audit-webhook.yaml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    config = yaml.safe_load(path.read_text())
    (where,) = config["clusters"]
    assert where["cluster"]["server"] == "https://10.96.0.7:9765/k8s-audit"
    assert where["cluster"]["tls-server-name"] == "gadget-k8s-audit.gadget.svc"
    secret = cluster.objects[SECRET]["data"]
    assert where["cluster"]["certificate-authority-data"] == secret["tls.crt"]
    token = config["users"][0]["user"]["token"]
    assert base64.b64decode(secret["token"]).decode() == token and token not in out and len(token) > 40
    assert yaml.safe_load((tmp_path / "audit/audit-policy.yaml").read_text())["kind"] == "Policy"
    deploy(chosen(cluster), SETTINGS, 20, audit=tmp_path / "audit")
    assert cluster.objects[SECRET]["data"] == secret and yaml.safe_load(path.read_text()) == config


def test_receiver_that_does_not_come(cluster: Cluster, capsys, tmp_path: Path) -> None:
    """If the receiver of audit events does not come up I am told why, and get no files."""
    have_receiver(cluster, reason="ImagePullBackOff", message="no such image")
    with pytest.raises(Unreachable, match=r"1 of 1 node ready in .* s, but the receiver of audit events is not"):
        deploy(chosen(cluster), SETTINGS, 20, audit=tmp_path / "audit")
    assert (
        "  k8s-audit  not ready  pod gadget-k8s-audit-x is ImagePullBackOff: no such image" in capsys.readouterr().out
    )
    assert not (tmp_path / "audit").exists()


def test_undeploy_removes_the_receiver(cluster: Cluster, capsys, tmp_path: Path) -> None:
    """Undeploy removes the receiver of audit events with its keys, also if I say nothing of it."""
    have_receiver(cluster, ready=True)
    deploy(chosen(cluster), SETTINGS, 20, audit=tmp_path)
    assert SECRET in cluster.objects
    cluster.lists[PODS] = []
    undeploy(chosen(cluster), 5)
    assert cluster.objects == {}


def test_no_openssl(cluster: Cluster, tmp_path: Path, monkeypatch) -> None:
    """Where no certificate can be made I am told what is missing, before anything is made."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GadgetError, match="made by openssl, which is not installed here"):
        deploy(chosen(cluster), SETTINGS, 5, audit=tmp_path)
    assert cluster.objects == {}


HUBBLE_SECRETS = [f"{NAMESPACE}/secrets/hubble-relay-{side}-certs" for side in ("server", "client")]
HUBBLE = "/apis/apps/v1/namespaces/gadget/deployments/gadget-hubble"


def have_hubble(cluster: Cluster, **state: object) -> None:
    """A node with an agent, and Hubble's API, whose pod is there once its Deployment is."""
    pod = agent_pod("node-a", **state)
    pod["metadata"] |= {"name": "gadget-hubble-x", "labels": {"app.kubernetes.io/component": "hubble"}}
    have(cluster, agent_pod("node-a", ready=True))
    cluster.wanted = 1

    def looked() -> None:
        if HUBBLE in cluster.objects and pod not in cluster.lists[PODS]:
            cluster.lists[PODS].append(pod)

    cluster.looked = looked


def test_hubble(cluster: Cluster, capsys) -> None:
    """Deploy --hubble makes Hubble's API once there are agents, says where it is and with which keys, and keeps these the next time."""
    have_hubble(cluster, ready=True)
    deploy(chosen(cluster), SETTINGS, 20, hubble=True)
    out = capsys.readouterr().out
    assert "  hubble  ready" in out and "1 of 1 node ready" in out
    assert "hubble-relay.gadget.svc:443" in out and "Secret hubble-relay-client-certs" in out
    server, client = (cluster.objects[path]["data"] for path in HUBBLE_SECRETS)
    assert server["ca.crt"] == client["ca.crt"] and server["tls.key"] != client["tls.key"]
    assert list(cluster.objects).index(HUBBLE) > list(cluster.objects).index(DAEMON_SET)
    deploy(chosen(cluster), SETTINGS, 20, hubble=True)
    assert [cluster.objects[path]["data"] for path in HUBBLE_SECRETS] == [server, client]
    cluster.lists[PODS] = []
    cluster.looked = lambda: None
    undeploy(chosen(cluster), 5)
    assert cluster.objects == {}


def test_hubble_that_does_not_come(cluster: Cluster, capsys) -> None:
    """If Hubble's API does not come up I am told why; without agents it is not even made."""
    have_hubble(cluster, reason="ImagePullBackOff", message="no such image")
    with pytest.raises(Unreachable, match=r"1 of 1 node ready in .* s, but Hubble's API is not"):
        deploy(chosen(cluster), SETTINGS, 20, hubble=True)
    assert "  hubble  not ready  pod gadget-hubble-x is ImagePullBackOff: no such image" in capsys.readouterr().out
    del cluster.objects[HUBBLE]
    have(cluster, agent_pod("node-a", reason="ImagePullBackOff", message="no such image"))
    with pytest.raises(Unreachable, match=r"0 of 1 node ready in \d\.\d s"):  # nor waited for
        deploy(chosen(cluster), SETTINGS, 20, hubble=True)
    assert HUBBLE not in cluster.objects


def test_hubble_is_replaced(cluster: Cluster, capsys) -> None:
    """A pod of Hubble's API that an earlier deploy made is not taken for the one that comes: if that fails I am told."""
    have_hubble(cluster, ready=True)
    looks = count(1)

    def asked(path: str) -> None:
        if path != HUBBLE or HUBBLE not in cluster.objects:
            return
        status, pods = cluster.objects[HUBBLE]["status"], cluster.lists[PODS]
        number = next(looks)
        if number == 1:  # nobody has seen yet that it has changed
            status["observedGeneration"] -= 1
        elif number == 2:
            status["observedGeneration"] += 1
            status["updatedReplicas"] = 0
        elif number == 3:
            status["updatedReplicas"] = 1
            new = agent_pod("node-a", reason="ImagePullBackOff", message="no such image")
            old = next(each for each in pods if each["metadata"]["name"] == "gadget-hubble-x")
            new["metadata"] |= {**old["metadata"], "name": "gadget-hubble-y"}
            pods[pods.index(old)] = new
            cluster.looked = lambda: None

    cluster.asked = asked
    with pytest.raises(Unreachable, match="Hubble's API is not"):
        deploy(chosen(cluster), SETTINGS, 20, hubble=True)
    assert "pod gadget-hubble-y is ImagePullBackOff: no such image" in capsys.readouterr().out


def test_hubble_is_printed() -> None:
    """Deploy --hubble --print-only prints all of it with new keys, to apply by other means."""
    done = run_cli("deploy", "--hubble", "--print-only")
    assert done.returncode == 0, done.stderr
    found = [each for each in yaml.safe_load_all(done.stdout) if "hubble" in each["metadata"]["name"]]
    assert {each["kind"] for each in found} >= {"Deployment", "Service", "Secret", "Role", "ClusterRole"}
    assert all(each["data"]["tls.key"] for each in found if each["kind"] == "Secret")


def deployed(cluster: Cluster) -> None:
    have(cluster, agent_pod("node-a", ready=True))
    deploy(chosen(cluster), SETTINGS, 5)
    cluster.lists[PODS] = []
    # what every namespace has
    cluster.lists[f"{NAMESPACE}/configmaps"] = [{"metadata": {"name": "kube-root-ca.crt"}}]
    cluster.lists[f"{NAMESPACE}/serviceaccounts"] = [{"metadata": {"name": "default"}}]
    cluster.lists[f"{NAMESPACE}/secrets"] = [{"metadata": {"name": "x"}, "type": "kubernetes.io/service-account-token"}]
    cluster.lists[EVENTS] = [{"metadata": {"name": "some"}}]


def test_undeploy_removes_everything(cluster: Cluster, capsys) -> None:
    """Undeploy removes all that deploy made, the namespace too."""
    deployed(cluster)
    undeploy(chosen(cluster), 5)
    assert cluster.objects == {}
    assert "Namespace gadget" in capsys.readouterr().out


def test_undeploy_removes_definitions(cluster: Cluster, capsys) -> None:
    """Undeploy removes what --detach and --detect have defined, too: it keeps no namespace from going."""
    deployed(cluster)
    made = config_map([from_toml("opens", 'gadget = "opensnoop"')], "gadget")
    cluster.objects[f"{NAMESPACE}/configmaps/gadget-runs"] = made
    cluster.objects[f"{NAMESPACE}/configmaps/gadget-rules"] = manifests.rules_map({"a.yaml": ""}, "gadget")
    undeploy(chosen(cluster), 5)
    assert cluster.objects == {}
    assert "ConfigMap gadget-runs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "kind"),
    [(f"{NAMESPACE}/configmaps", "Configmaps"), ("/apis/example.org/v1/namespaces/gadget/widgets", "Widgets")],
)
def test_undeploy_leaves_what_is_not_ours(cluster: Cluster, capsys, path: str, kind: str) -> None:
    """A namespace in which somebody has put something stays with it, and I am told."""
    deployed(cluster)
    cluster.lists.setdefault(path, []).append({"metadata": {"name": "precious"}})
    undeploy(chosen(cluster), 5)
    assert list(cluster.objects) == [NAMESPACE]
    out, err = capsys.readouterr()
    assert "Namespace" not in out
    assert err == f"Namespace gadget stays: {kind} precious is in it\n"


def test_undeploy_cannot_look(cluster: Cluster, capsys) -> None:
    """If I may not see whether the namespace has others' things it stays, and I am told why."""
    deployed(cluster)
    cluster.refused["GET", f"{NAMESPACE}/configmaps"] = (403, "configmaps is forbidden")
    undeploy(chosen(cluster), 5)
    assert list(cluster.objects) == [NAMESPACE]
    assert "Namespace gadget stays: what is in it cannot be seen: " in capsys.readouterr().err


def test_undeploy_without_looking_at_pods(cluster: Cluster, capsys) -> None:
    """If the agents cannot be listed I am told that what they pinned may stay on the nodes."""
    deployed(cluster)
    cluster.refused["GET", PODS] = (403, 'User "alice" cannot list resource "pods" in API group ""')
    undeploy(chosen(cluster), 5)
    err = capsys.readouterr().err
    wanted = "you may not list pods in namespace gadget: ask for list on pods there"
    assert f"warning: /sys/fs/bpf/gadget may stay behind on every node: {wanted}\n" in err


def test_undeploy_nothing(cluster: Cluster) -> None:
    """Where there are no agents undeploy says so, and fails."""
    with pytest.raises(GadgetError, match="nothing to remove: there are no agents in namespace gadget"):
        undeploy(chosen(cluster), 5)


def security(cluster: Cluster) -> dict:
    (container,) = cluster.objects[DAEMON_SET]["spec"]["template"]["spec"]["containers"]
    return container["securityContext"]


@pytest.mark.parametrize(
    ("suffices", "said"),
    [
        ("RuntimeDefault", []),
        (
            "Unconfined",
            ["the runtime's seccomp profile does not let agents load BPF programs (node-b): going on without"],
        ),
        ("bpffs", ["node-b has no bpffs, which recorders need: going on with privileged agents, which mount it"]),
        ("privileged", ["least privilege does not suffice here (node-b): going on with privileged agents"]),
    ],
)
def test_as_few_rights_as_suffice(cluster: Cluster, capsys, suffices: str, said: list[str]) -> None:
    """Agents get the least rights with which they run on every node, and I am told if those are more than the least."""
    cluster.wanted = 2
    tried = []

    def looked() -> None:
        has = security(cluster)
        tried.append("privileged" if has.get("privileged") else has["seccompProfile"]["type"])
        well = tried[-1] == suffices or tried[-1] == "privileged"
        code = 78 if suffices == "bpffs" else 77
        node_b = {"ready": True} if well else {"terminated": {"exitCode": code}}
        cluster.lists[PODS] = [agent_pod("node-a", ready=True), agent_pod("node-b", **node_b)]

    cluster.looked = looked
    deploy(chosen(cluster), SETTINGS, 20, Remedies(rights=True, seccomp=True, priority=True))
    out = capsys.readouterr().out
    assert all(line in out for line in said)
    assert "2 of 2 nodes ready" in out
    assert tried[-1] == ("privileged" if suffices == "bpffs" else suffices)
    assert ("Unconfined" in tried) is (suffices in ("Unconfined", "privileged"))


def test_no_more_rights_than_asked_for(cluster: Cluster) -> None:
    """With --least-privilege agents that cannot run with that are not given more."""
    crashed = agent_pod("node-a", reason="CrashLoopBackOff", message="back-off 10s")
    crashed["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] = 77
    have(cluster, crashed)
    with pytest.raises(Unreachable, match="0 of 1 node ready"):
        deploy(chosen(cluster), SETTINGS, 20)
    assert security(cluster)["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "privileged" not in security(cluster)


NO_QUOTA = (
    'Error creating: pods "gadget-" is forbidden: insufficient quota to match these scopes: '
    "[{PriorityClass In [system-node-critical system-cluster-critical]}]"
)


@pytest.mark.parametrize("allowed", ["with quota", "not at all", "no right to make it"])
def test_critical_pods_need_a_quota(cluster: Cluster, capsys, allowed: str) -> None:
    """On a cluster such as GKE, which wants a quota for critical pods, one is made; if that does not help, none are critical."""
    cluster.wanted = 1
    numbers = iter(range(100))
    if allowed == "no right to make it":
        cluster.refused["PATCH", QUOTA] = (403, 'User "alice" cannot patch resource "resourcequotas" in API group ""')

    def looked() -> None:
        critical = "priorityClassName" in cluster.objects[DAEMON_SET]["spec"]["template"]["spec"]
        if critical and not (QUOTA in cluster.objects and allowed == "with quota"):
            cluster.lists[EVENTS] = [failed_create(NO_QUOTA, name=f"e{next(numbers)}")]
        else:
            cluster.lists[EVENTS], cluster.lists[PODS] = [], [agent_pod("node-a", ready=True)]

    cluster.looked = looked
    deploy(chosen(cluster), SETTINGS, 20, Remedies(priority=True), refused_seconds=0.2)
    out = capsys.readouterr().out
    assert "this cluster wants a quota for system-node-critical: making one" in out
    assert ("going on without; agents may be evicted" in out) is (allowed != "with quota")
    assert "1 of 1 node ready" in out
    cluster.lists[PODS] = []
    undeploy(chosen(cluster), 5)
    assert QUOTA not in cluster.objects


def test_priority_class_by_name(cluster: Cluster) -> None:
    """A priority class that I chose is not exchanged for another."""
    cluster.wanted = 1
    cluster.looked = lambda: cluster.lists.update({EVENTS: [failed_create(NO_QUOTA)]})
    with pytest.raises(GadgetError, match=r"the cluster makes no pods: .*insufficient quota"):
        deploy(chosen(cluster), manifests.Settings("agent:1"), 5, Remedies(rights=True), refused_seconds=0.2)


def test_no_image() -> None:
    """Without --image I am told at once, before anything is asked of a cluster, how to make one."""
    done = run_cli("deploy", "--server=http://192.0.2.1:1", "--kubeconfig=/dev/null")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no image is published. Build one" in done.stderr and "docker build -t" in done.stderr
