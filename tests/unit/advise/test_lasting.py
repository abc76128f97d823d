"""The advice of today is right tomorrow: after a failover, for the next run, for the pods of the next node."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.advise.advisor import advise
from kubectl_gadget.advise.evaluate import Evaluator, PolicyEnd
from kubectl_gadget.advise.labels import is_generated, is_role
from kubectl_gadget.advise.observation import Observation
from tests.unit.advise.build import Build
from tests.unit.advise.test_property import MANY

#: What random words are made of, in names that the API server makes.
LETTERS = "bcdfghjklmnpqrstvwxz2456789"


@dataclass(frozen=True)
class Identity:
    """Name, owner and labels of a pod."""

    name: str
    owner: str
    labels: dict[str, str]


def made(kind: str, number: int, word: str) -> Identity:
    """The pod of the number-th run or replica of something; word is another each time."""
    if kind == "operator":  # a failover between each two
        name = f"pg-{number}"
        role = {"role": "primary", "pg.example/instanceRole": "primary"}
        return Identity(name, "Cluster/pg", {"pg.example/cluster": "pg", "pg.example/instance": name, **role})
    if kind == "workflow":
        owner = f"nightly-{word}"
        return Identity(f"{owner}-build-{number}", f"Workflow/{owner}", {"app": "nightly", "ci.example/run": owner})
    if kind == "runner":
        name = f"runner-{word}-{number}"
        return Identity(name, "", {"ci": "yes", "pod": name, "ci.example/id": f"{1000 + number}"})
    if kind == "job":
        owner = f"backup-{number}"
        return Identity(f"{owner}-{word}", f"Job/{owner}", {"app": "backup", "job-name": owner})
    if kind == "spark":
        labels = {"spark-app-name": "etl", "spark-app-selector": f"spark-{word}", "spark-exec-id": str(number)}
        return Identity(f"etl-{word}-exec-{number}", f"Pod/etl-{word}", labels)
    uid = f"0d9b{number:04x}-7c1e-4b9a-9d55-0123456789ab"
    return Identity(f"vm-{word}", "VirtualMachineInstance/vm", {"vm.example/name": "vm", "vm.example/created-by": uid})


SUCCESSORS = yaml.safe_load((Path(__file__).parent / "successors.yaml").read_text())
KINDS = ("operator", "workflow", "runner", "job", "spark", "machine")
words = st.text(LETTERS, min_size=5, max_size=5)


@MANY
@given(kind=st.sampled_from(KINDS), seen=st.lists(words, min_size=1, max_size=3, unique=True), later=words)
def test_next_pods_are_as_the_ones_before(kind: str, seen: list[str], later: str) -> None:
    """What a run, or the leader before a failover, was seen to do is allowed to the next one."""
    if kind == "runner" and len(seen) == 1:
        seen = [*seen, seen[0][::-1] + "x"]  # of one run alone it is not known that the number is of this run
    build = Build()
    build.node("node-a")
    web = build.pod("shop", "web-0", "node-a", {"app": "web"}, build.deployment("shop", "web", {"app": "web"}))
    for number, word in enumerate(seen, 1):
        pod = made(kind, number, word)
        place = build.pod("shop", pod.name, "node-a", pod.labels, pod.owner)
        build.talk(web, place, 5432)
        build.egress(place, "203.0.113.7", 443)
    advice = advise(Observation(build.context, build.flows))
    assert len(advice.policies) == 2, [policy.name for policy in advice.policies]
    evaluator = Evaluator([policy.to_dict() for policy in advice.policies], {})
    pod = made(kind, len(seen) + 1, later)
    client, server = (
        PolicyEnd("10.244.9.8", "shop", "web-1", {"app": "web"}),
        PolicyEnd("10.244.9.9", "shop", pod.name, pod.labels),
    )
    for source, target, port in ((client, server, 5432), (server, PolicyEnd("203.0.113.7"), 443)):
        verdict = evaluator.decide(source, target, "TCP", port)
        assert verdict.allowed, verdict.reason
        assert verdict.egress.isolated  # it is not allowed because no policy is about it any more


@pytest.mark.parametrize("case", SUCCESSORS, ids=[case["what"] for case in SUCCESSORS])
def test_successors_of_real_pods(case: dict[str, Any]) -> None:
    """What operators and pipelines that are in use label their pods with: the advice for one pod is about the next too."""
    build = Build()
    build.node("node-a")
    web = build.pod("shop", "web", "node-a", {"app": "web"})
    build.talk(web, build.pod("shop", case["pod"], "node-a", case["labels"], case.get("owner", "")), 5432)
    advice = advise(Observation(build.context, build.flows))
    (policy,) = (policy for policy in advice.policies if policy.name != "web")
    assert policy.selector == {"matchLabels": case["selector"]}
    labels = {key: value for key, value in (case["labels"] | case["next"]).items() if value}
    evaluator = Evaluator([policy.to_dict() for policy in advice.policies], {})
    following = PolicyEnd("10.244.9.9", "shop", "next", labels)
    verdict = evaluator.decide(PolicyEnd("10.244.9.8", "shop", "web-1", {"app": "web"}), following, "TCP", 5432)
    assert verdict.allowed and verdict.egress.isolated and verdict.ingress.isolated


def test_pods_beside_what_their_owner_selects() -> None:
    """Flink's task managers belong to the job manager's Deployment, which does not select them: they have a policy."""
    build = Build()
    build.node("node-a")
    own = {"app": "flink", "type": "native"}
    owner = build.deployment("shop", "flink", {**own, "component": "jobmanager"})
    job = {**own, "component": "jobmanager", "pod-template-hash": "6c9f7d5b8"}
    manager = build.pod("shop", "flink-6c9f7d5b8-x7k2p", "node-a", job, owner)
    worker = {**own, "component": "taskmanager"}
    build.talk(build.pod("shop", "flink-taskmanager-1-1", "node-a", worker, "Deployment/flink"), manager, 6123)
    advice = advise(Observation(build.context, build.flows))
    assert {policy.name: policy.selector["matchLabels"] for policy in advice.policies} == {
        "flink": {**own, "component": "jobmanager"},
        "flink-taskmanager": worker,
    }
    assert advice.warnings == ()


def selectors_of(*pods: tuple[str, dict[str, str], str]) -> list[dict[str, Any]]:
    build = Build()
    build.node("node-a")
    for name, labels, owner in pods:
        build.egress(build.pod("shop", name, "node-a", labels, owner), "203.0.113.7", 443)
    advice = advise(Observation(build.context, build.flows))
    return sorted((policy.selector["matchLabels"] for policy in advice.policies), key=str)


def test_what_is_no_run() -> None:
    """Pods that differ in what they are, and two clusters of an operator, have a policy each."""
    assert selectors_of(("web", {"app": "web", "env": "a"}, ""), ("cart", {"app": "cart", "env": "a"}, "")) == [
        {"app": "cart", "env": "a"},
        {"app": "web", "env": "a"},
    ]
    assert selectors_of(
        ("pg1-1", {"cluster": "pg1", "kind": "pg"}, "Cluster/pg1"),
        ("pg2-1", {"cluster": "pg2", "kind": "pg"}, "Cluster/pg2"),
    ) == [{"cluster": "pg1", "kind": "pg"}, {"cluster": "pg2", "kind": "pg"}]
    of_projects = [(f"job-{number}", {"project": f"{12 + number // 2}", "id": f"{number}"}, "") for number in range(4)]
    assert selectors_of(*of_projects) == [{"project": "12"}, {"project": "13"}]


def test_the_only_label_stays() -> None:
    """A pod whose only label is a role, or its own name given by hand, keeps it: without it nothing could find it."""
    assert selectors_of(("redis", {"role": "master"}, "")) == [{"role": "master"}]
    assert selectors_of(("web", {"app": "web"}, "")) == [{"app": "web"}]


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        ("0d9b0001-7c1e-4b9a-9d55-0123456789ab", True), ("run-20240517", True), ("spark-3f2a9c81", True),
        ("cart", False), ("v2", False), ("facade", False), ("1000", False),
    ],
)  # fmt: skip
def test_generated_values(value: str, is_one: bool) -> None:
    """Identities, hashes and dates are told from words and small numbers."""
    assert is_generated(value) is is_one


def test_roles() -> None:
    """Roles are known by key and value, as operators write them."""
    assert is_role("cnpg.io/instanceRole", "primary") and is_role("role", "master") and is_role("spilo-role", "Replica")
    assert not is_role("spark-role", "driver") and not is_role("app", "primary")
