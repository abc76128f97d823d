"""What pods are of, and how these name and label them: of each the next one too, after a failover or in the next run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: What random words are made of, in names that the API server makes.
LETTERS = "bcdfghjklmnpqrstvwxz2456789"
#: Operators, which give each pod a name and a role of its own.
OPERATORS = ("cnpg", "strimzi", "patroni")
#: Whose pods are of one run, and have an owner of their own or none. Argo's tasks, GitLab's and Tekton's, KubeVirt's
#: machines, Spark's executors; Jobs with a CronJob, and those that people and pipelines make.
RUNS = ("workflow", "runner", "task", "machine", "spark", "cron job", "job")
#: Those whose owner stays, and whose pods are made from its template.
REPLICAS = ("Deployment", "Rollout", "StatefulSet", "DaemonSet", "")


@dataclass(frozen=True)
class Identity:
    """Name, owner and labels of a pod; those of its labels that its successors have as well."""

    name: str
    owner: str
    labels: dict[str, str]
    lasting: dict[str, str]


def made(kind: str, name: str, number: int, word: str, labels: Mapping[str, str], *, leader: int = 1) -> Identity:
    """The pod of the number-th run or replica of a workload; word is another in each run, leader leads the replicas."""
    if kind in OPERATORS:
        return _of_operator(kind, name, number, labels, "primary" if number == leader else "replica")
    if kind in RUNS:
        return _of_run(kind, name, number, word, labels)
    passing: dict[str, str] = {}
    owner = f"{kind}/{name}" if kind else ""
    if kind in ("Deployment", "Rollout"):
        owner = f"ReplicaSet/{name}-{word}"
        passing = {"rollouts-pod-template-hash" if kind == "Rollout" else "pod-template-hash": word}
    elif kind == "StatefulSet":
        passing = {
            "statefulset.kubernetes.io/pod-name": f"{name}-{number}",
            "apps.kubernetes.io/pod-index": f"{number}",
        }
    elif kind == "DaemonSet":
        passing = {"controller-revision-hash": word, "pod-template-generation": f"{number}"}
    return Identity(f"{name}-{word}-{number}", owner, {**labels, **passing}, dict(labels))


def _of_operator(kind: str, name: str, number: int, labels: Mapping[str, str], role: str) -> Identity:
    pod = f"{name}-{number}"
    if kind == "cnpg":
        lasting = {**labels, "cnpg.io/cluster": name, "cnpg.io/podRole": "instance"}
        own = {"cnpg.io/instanceName": pod, "cnpg.io/instanceRole": role, "role": role}
        return Identity(pod, f"Cluster/{name}", {**lasting, **own}, lasting)
    if kind == "strimzi":
        pod = f"{name}-kafka-{number}"
        lasting = {
            **labels,
            "strimzi.io/cluster": name,
            "strimzi.io/name": f"{name}-kafka",
            "strimzi.io/broker-role": "true",
        }
        own = {"strimzi.io/pod-name": pod, "statefulset.kubernetes.io/pod-name": pod}
        return Identity(pod, f"StrimziPodSet/{name}-kafka", {**lasting, **own}, lasting)
    lasting = {**labels, "application": "spilo", "cluster-name": name}
    own = {"spilo-role": "master" if role == "primary" else role, "statefulset.kubernetes.io/pod-name": pod}
    return Identity(pod, f"PatroniCluster/{name}", {**lasting, **own}, lasting)


def _of_run(kind: str, name: str, number: int, word: str, labels: Mapping[str, str]) -> Identity:
    run, uid = f"{name}-{word}", f"0d9b{number:04x}-7c1e-4b9a-9d55-0123456789ab"
    lasting, own, pod, owner = dict(labels), dict[str, str](), f"{run}-{number}", ""
    if kind == "workflow":
        pod, owner = f"{run}-build-{number}", f"Workflow/{run}"
        own = {"workflows.argoproj.io/workflow": run, "workflows.argoproj.io/completed": "false", "ci.example/run": run}
    elif kind == "runner":
        own = {"pod": pod, "job.runner.gitlab.com/id": f"{number}", "ci.example/id": f"{1000 + number}"}
    elif kind == "task":
        owner, lasting = f"TaskRun/{run}", {**labels, "tekton.dev/task": name}
        own = {"tekton.dev/taskRun": run, "ci.example/commit": f"3f2a9c8{number:x}"}
    elif kind == "machine":
        pod, owner, lasting = (
            f"virt-launcher-{run}",
            f"VirtualMachineInstance/{name}",
            {**labels, "vm.kubevirt.io/name": name},
        )
        own = {"kubevirt.io/created-by": uid}
    elif kind == "spark":
        pod, owner = f"{run}-exec-{number}", f"Pod/{run}-driver"
        lasting = {**labels, "spark-app-name": name, "spark-role": "executor"}
        own = {"spark-app-selector": f"spark-{number:06x}ab", "spark-exec-id": f"{number}"}
    else:
        run = f"{name}-{28_333_000 + number}" if kind == "cron job" else run
        pod, owner = f"{run}-{word}", f"Job/{run}"
        own = {"job-name": run, "batch.kubernetes.io/job-name": run, "batch.kubernetes.io/controller-uid": uid}
    return Identity(pod, owner, {**lasting, **own}, lasting)
