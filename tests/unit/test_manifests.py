"""What deploy makes: the promises of docs/cluster.md, in both modes."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from agent.audit.main import LEAST_TOKEN
from gadget import syscalls
from gadget.runtimes import STATES, State
from kubectl_gadget.cluster.manifests import HubbleKeys, Settings, render
from kubectl_gadget.cluster.options import HUBBLE
from kubectl_gadget.hubble.command import ServeCommand
from tests.conftest import run_cli
from tests.seccomp import names_in
from tests.unit.rules.test_rules import rule

MODES = pytest.mark.parametrize("least", [False, True], ids=["privileged", "least-privilege"])


def pod_of(**settings: Any) -> dict[str, Any]:
    """The spec of an agent's pod."""
    pod: dict[str, Any] = render(Settings("agent:1", **settings))[-1]["spec"]["template"]["spec"]
    return pod


@MODES
def test_survives_on_a_full_node(least: bool) -> None:
    """An agent goes on where others are evicted, on every node whatever its taints, and takes what was measured."""
    pod = pod_of(least_privilege=least)
    (container,) = pod["containers"]
    assert pod["priorityClassName"] == "system-node-critical"
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert container["resources"] == {"requests": {"cpu": "20m", "memory": "208Mi"}, "limits": {"memory": "832Mi"}}


@MODES
def test_probes(least: bool) -> None:
    """Kubernetes asks an agent whether it is well, from inside its pod, as nothing listens on the pod network."""
    (container,) = pod_of(least_privilege=least)["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["exec"]["command"] == ["gadget-agent-health", "127.0.0.1:7070"], probe
        assert not {"grpc", "httpGet", "tcpSocket"} & container[probe].keys()


@MODES
def test_what_it_may_do(least: bool) -> None:
    """The root file system is read only, and with --least-privilege an agent has four capabilities and no more."""
    pod = pod_of(least_privilege=least)
    security = pod["containers"][0]["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert not {"hostNetwork", "hostIPC"} & pod.keys()
    assert ("hostPID" in pod, "privileged" in security) == (not least, not least)
    if least:
        capabilities = security["capabilities"]
        assert capabilities == {"drop": ["ALL"], "add": ["BPF", "PERFMON", "NET_ADMIN", "DAC_READ_SEARCH"]}
        assert security["allowPrivilegeEscalation"] is False
        propagations = {mount.get("mountPropagation") for mount in pod["containers"][0]["volumeMounts"]}
        assert propagations == {"HostToContainer", None}  # the other is for the privileged alone


@MODES
def test_no_runtime_is_in_reach(least: bool) -> None:
    """No socket of a runtime is mounted, which would make an agent root on its node; each runtime's config.json is."""
    pod = pod_of(least_privilege=least)
    paths = {
        volume["name"]: PurePosixPath(volume["hostPath"]["path"]) for volume in pod["volumes"] if "hostPath" in volume
    }
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert paths.keys() == mounts.keys() - {"runs", "rules"}  # ConfigMaps
    for socket in ("containerd/containerd.sock", "k3s/containerd/containerd.sock", "docker.sock", "crio/crio.sock",
                   "k0s/containerd.sock", "docker/containerd/containerd.sock", "podman/podman.sock", "containerd/s/shim"):  # fmt: skip
        assert not [path for path in paths.values() if PurePosixPath("/run", socket).is_relative_to(path)], socket
    for state in STATES:
        if state.path.startswith("/run/") or state.runtime == "docker":  # else it would be made on every node, and stay
            (name,) = [name for name, path in paths.items() if path == PurePosixPath(state.containers)]
            assert mounts[name]["mountPath"] == f"/host{paths[name]}" and mounts[name]["readOnly"] is True
            assert mounts[name]["mountPropagation"] == "HostToContainer"


@MODES
def test_runtime_elsewhere(least: bool) -> None:
    """`deploy --runtime-state` lets agents look at the containers of such a runtime, and not at its socket."""
    states = State("containerd", "/var/snap/microk8s/common/run/containerd"), State("docker", "/data/docker")
    pod = pod_of(least_privilege=least, states=(*states, State("containerd", "/run/containerd")))
    (container,) = pod["containers"]
    folders = [volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume]
    for state in states:
        assert f"--runtime-state={state}" in container["args"]
        (mount,) = [each for each in container["volumeMounts"] if each["mountPath"] == f"/host{state.containers}"]
        assert state.containers in folders and mount["readOnly"] is True
    assert len(folders) == len(set(folders))
    shown = run_cli("deploy", "--print-only", "--kubeconfig=/dev/null", "--runtime-state=/opt/containerd/")
    assert "path: /opt/containerd/io.containerd.runtime.v2.task\n" in shown.stdout
    assert "--runtime-state=containerd=/opt/containerd\n" in shown.stdout


@MODES
def test_settings_of_the_recorders(least: bool) -> None:
    """What I say of recorders, masking and taints reaches the agents."""
    given = ["--traceloop=shop,web", "--redact=pass=.*", '--redact="', "--traceloop-memory=64", "--no-flows"]
    given += ["--no-syscalls"]
    given += ["--set=traceloop.bad-end-seconds=3", "--set=counts.word=a=b"]
    taints = ["--toleration=a", "--toleration=b=c:NoSchedule", "--toleration=d:NoExecute"]
    mode = ["--least-privilege"] if least else []
    shown = run_cli("deploy", "--print-only", "--kubeconfig=/dev/null", *given, *taints, *mode)
    assert shown.returncode == 0, shown.stderr
    pod = list(yaml.safe_load_all(shown.stdout))[-1]["spec"]["template"]["spec"]
    assert set(given) <= set(pod["containers"][0]["args"])
    assert pod["tolerations"] == [
        {"key": "a", "operator": "Exists"},
        {"key": "b", "operator": "Equal", "value": "c", "effect": "NoSchedule"},
        {"key": "d", "operator": "Exists", "effect": "NoExecute"},
    ]


def test_rules_that_always_judge(tmp_path: Path) -> None:
    """Deploy --detect brings my rule files to the agents, beside those that come with it, once they make sense."""
    (tmp_path / "mine.yaml").write_text(rule("evt.type = execve", name="Mine"))
    (tmp_path / "README.md").write_text("no rules")
    command = ["deploy", "--print-only", "--kubeconfig=/dev/null", "--detect", "default", "--detect", str(tmp_path)]
    made = list(yaml.safe_load_all(run_cli(*command, "--gadget-namespace=x").stdout))
    (config_map,) = (each for each in made if each["kind"] == "ConfigMap")
    assert config_map["metadata"]["namespace"] == "x" and [*config_map["data"]] == ["mine.yaml"]
    pod = made[-1]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    (place,) = (each["mountPath"] for each in container["volumeMounts"] if each["name"] == "rules")
    assert [each for each in container["args"] if "--detect" in each] == ["--detect=default", f"--detect={place}"]
    (volume,) = (each for each in pod["volumes"] if each["name"] == "rules")
    assert volume["configMap"] == {"name": config_map["metadata"]["name"], "optional": True}
    (tmp_path / "mine.yaml").write_text(rule("proc.nme = sh", name="Mine"))
    refused = run_cli(*command)
    assert refused.returncode == 2 and "mine.yaml:3:" in refused.stderr and not refused.stdout


def test_receiver_of_audit_events_is_printed(tmp_path: Path) -> None:
    """Deploy --k8s-audit --print-only prints the receiver too, with keys that work, and says what it does not write."""
    command = ["deploy", "--print-only", "--kubeconfig=/dev/null", "--k8s-audit", str(tmp_path / "audit")]
    done = run_cli(*command, "--gadget-namespace=x")
    made = {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}
    assert made["Deployment"]["metadata"]["namespace"] == "x" and made["Secret"]["metadata"]["namespace"] == "x"
    for name, data in made["Secret"]["data"].items():
        (tmp_path / name).write_bytes(base64.b64decode(data))
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    assert len((tmp_path / "token").read_text()) >= LEAST_TOKEN
    assert "audit is not written" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "audit").exists()
    assert "token" not in run_cli(*command[:3]).stdout


def test_rules_that_no_configmap_has(tmp_path: Path) -> None:
    """A folder without rules, one with too many, and two folders are refused in one line."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "b.yaml").write_text("#" * (1 << 20))
    for places in ((tmp_path / "a",), (tmp_path / "b",), (tmp_path / "a", tmp_path / "b"), (tmp_path / "none",)):
        given = [f"--detect={place}" for place in places]
        done = run_cli("deploy", "--print-only", "--kubeconfig=/dev/null", *given)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1) and str(places[-1]) in done.stderr


@pytest.mark.parametrize(
    "given",
    ["--toleration=:NoSchedule", "--toleration=a:Never", "--node-selector=a", "--runtime-state=opt", "--set=memory=3"],
)
def test_mistakes(given: str) -> None:
    """A toleration, a selector or a folder that says nothing is refused in one line."""
    done = run_cli("deploy", "--print-only", "--kubeconfig=/dev/null", given)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert given.partition("=")[2] in done.stderr


def test_seccomp_profile() -> None:
    """The shipped profile names system calls that there are, on one architecture or both, each once and in order."""
    names = names_in(Path(__file__).parents[2] / "manifests/seccomp.json")
    assert names == sorted(set(names))
    assert set(names) <= syscalls.numbers("x86_64").keys() | syscalls.numbers("aarch64").keys()
    assert not {"ptrace", "mount", "unshare", "init_module", "process_vm_writev", "io_uring_setup"} & set(names)


@pytest.mark.parametrize(
    ("given", "profile"),
    [
        ("RuntimeDefault", {"type": "RuntimeDefault"}),
        ("Unconfined", {"type": "Unconfined"}),
        ("localhost/gadget/x.json", {"type": "Localhost", "localhostProfile": "gadget/x.json"}),
    ],
)
def test_seccomp(given: str, profile: dict[str, str]) -> None:
    """I choose the agents' seccomp profile by name; a word that is none is refused."""
    shown = run_cli("deploy", "--print-only", "--kubeconfig=/dev/null", f"--seccomp={given}")
    container = list(yaml.safe_load_all(shown.stdout))[-1]["spec"]["template"]["spec"]["containers"][0]
    assert container["securityContext"]["seccompProfile"] == profile
    for wrong in (["--seccomp=off"], ["--privileged", f"--seccomp={given}"], ["--privileged", "--least-privilege"]):
        done = run_cli("deploy", "--print-only", "--kubeconfig=/dev/null", *wrong)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_priority_class() -> None:
    """Agents have the priority class that I choose, or none."""
    assert pod_of(priority_class="batch")["priorityClassName"] == "batch"
    assert "priorityClassName" not in pod_of(priority_class="none")


def receiver_of(**settings: Any) -> dict[str, Any]:
    """The spec of the pod that receives audit events."""
    objects = render(Settings("agent:1", audit={"token": "eA=="}, **settings))
    assert [each["kind"] for each in objects].count("Deployment") == 1 and objects[-1]["kind"] == "DaemonSet"
    (found,) = [each for each in objects if each["kind"] == "Deployment"]
    pod: dict[str, Any] = found["spec"]["template"]["spec"]
    return pod


def test_receiver_of_audit_events_may_nothing() -> None:
    """The receiver of audit events has no rights: none of the host, of the API server, of root; and its keys in a Secret."""
    pod = receiver_of()
    (container,) = pod["containers"]
    assert not {"hostPID", "hostNetwork", "hostIPC", "serviceAccountName", "priorityClassName"} & pod.keys()
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert {next(iter(each.keys() - {"name"})) for each in pod["volumes"]} == {"secret", "configMap"}
    assert container["resources"]["limits"]["memory"]
    assert not [each for each in render(Settings("agent:1")) if "audit" in each["metadata"]["name"]]


def test_settings_of_the_receiver() -> None:
    """Audit events are judged by the rules that I gave, else by ours, from my image, and masked as all else."""
    plain = receiver_of()["containers"][0]["args"]
    assert [each for each in plain if each.startswith("--detect")] == ["--detect=default"]
    pod = receiver_of(rules={"a.yaml": ""}, redact=("pass=.*",), node_selector={"a": "b"}, image_pull_secret="mine",
                      log_level="debug", namespace="other")  # fmt: skip
    (container,) = pod["containers"]
    assert [each for each in container["args"] if each.startswith("--detect")] == ["--detect=/etc/gadget/rules.d"]
    assert {"--redact=pass=.*", "--log-level=debug"} <= set(container["args"]) and container["image"] == "agent:1"
    assert pod["nodeSelector"]["a"] == "b" and pod["imagePullSecrets"] == [{"name": "mine"}]
    objects = render(Settings("agent:1", audit={}, namespace="other"))
    named = {each["kind"]: each["metadata"].get("namespace") for each in objects}
    assert named["Secret"] == named["Service"] == named["Deployment"] == "other"


def test_receiver_runs_its_command(tmp_path: Path) -> None:
    """The receiver's arguments are those that its command knows, and its labels are not the agents'."""
    from agent.audit.main import command

    pod = receiver_of(rules={"a.yaml": ""}, redact=("x",))
    (container,) = pod["containers"]
    known = {name for each in command.params for name in each.opts}
    assert container["command"] == ["gadget-agent-audit"]
    assert {each.partition("=")[0] for each in container["args"]} <= known
    objects = {each["kind"]: each for each in render(Settings("agent:1", audit={}))}
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert labels == objects["Service"]["spec"]["selector"]
    assert labels != objects["DaemonSet"]["spec"]["template"]["metadata"]["labels"]


def hubble_of(**settings: Any) -> dict[str, list[dict[str, Any]]]:
    """The objects of Hubble's API, by kind."""
    keys = HubbleKeys({"tls.key": "eA=="}, {"tls.key": "eQ=="})
    found: dict[str, list[dict[str, Any]]] = {}
    for each in render(Settings("agent:1", hubble=keys, **settings)):
        if "hubble" in each["metadata"]["name"]:
            found.setdefault(each["kind"], []).append(each)
    return found


def test_hubble_may_little() -> None:
    """Hubble's API is no root, may reach agents and list what has addresses, and serves the pod network by TLS alone."""
    objects = hubble_of()
    (role,), (cluster_role,), (deployment,) = objects["Role"], objects["ClusterRole"], objects["Deployment"]
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["get", "create"]},
    ]
    assert cluster_role["rules"] == [{"apiGroups": [""], "resources": ["nodes", "pods", "services"], "verbs": ["list"]}]
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert not {"hostPID", "hostNetwork", "hostIPC", "priorityClassName"} & pod.keys()
    assert pod["serviceAccountName"] == "gadget-hubble"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert {next(iter(each.keys() - {"name"})) for each in pod["volumes"]} == {"secret", "emptyDir"}
    assert {"--tls=/etc/gadget/hubble", "--status=127.0.0.1:7070"} <= set(container["args"])
    assert [each["data"] for each in objects["Secret"]] == [{"tls.key": "eA=="}, {"tls.key": "eQ=="}]
    assert pod["volumes"][0]["secret"]["secretName"] == objects["Secret"][0]["metadata"]["name"]
    assert not [each for each in render(Settings("agent:1")) if "hubble" in each["metadata"]["name"]]


def test_hubble_in_another_namespace() -> None:
    """In a namespace of my choice Hubble's API reads that one's agents, with rights of its own there."""
    objects = hubble_of(namespace="other", node_selector={"a": "b"}, image_pull_secret="mine")
    for kind, (item, *_) in objects.items():
        assert item["metadata"].get("namespace", "-other") in ("other", "-other")
        if kind.endswith("RoleBinding"):
            assert item["roleRef"]["name"] == objects[item["roleRef"]["kind"]][0]["metadata"]["name"]
            assert item["subjects"][0]["namespace"] == "other"
    pod = objects["Deployment"][0]["spec"]["template"]["spec"]
    args = pod["containers"][0]["args"]
    assert {"--gadget-namespace=other", "--tls-name=hubble-relay.other.svc", "--tls=/etc/gadget/hubble"} <= set(args)
    assert pod["nodeSelector"]["a"] == "b" and pod["imagePullSecrets"] == [{"name": "mine"}]


def test_hubble_counts_flows() -> None:
    """With --metrics Hubble's API counts flows for Prometheus, which finds it as it finds agents."""
    template = hubble_of(metrics=True)["Deployment"][0]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert "--metrics=$(POD_IP):7071" in container["args"]
    assert {"name": "metrics", "containerPort": 7071} in container["ports"]
    assert template["metadata"]["annotations"]["prometheus.io/port"] == "7071"
    assert "annotations" not in hubble_of()["Deployment"][0]["spec"]["template"]["metadata"]


def test_hubble_runs_its_command() -> None:
    """The arguments of Hubble's API are those that its command knows, and its labels are its Service's alone."""
    (deployment,), (service,) = (hubble_of(metrics=True)[kind] for kind in ("Deployment", "Service"))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["kubectl-gadget", "hubble", "serve"]
    known = {name for each in ServeCommand().params for name in each.opts}
    assert {each.partition("=")[0] for each in container["args"]} <= known
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels == service["spec"]["selector"] and labels["app.kubernetes.io/component"] == HUBBLE
