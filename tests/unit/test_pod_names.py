"""Pods as people name them: NAME, the beginning of one, a pattern, KIND/NAME."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.containers.identity import Container
from agent.selection import Selection as AgentSelection
from gadget._generated import gadget_pb2 as pb
from gadget.errors import GadgetError, UsageError
from gadget.kube.api import ApiError
from gadget.pod_choice import ChosenPods, PodChoice
from kubectl_gadget.cluster.workloads import find_pods
from kubectl_gadget.pods import read_pods
from kubectl_gadget.stream.request import Selection, make_selection
from kubectl_gadget.where import find_selection


def select(*pods: str, namespace: str = "shop") -> Selection:
    """What -p means."""
    return make_selection((namespace,) if namespace else (), False, pods, (), "")


@pytest.mark.parametrize(
    ("written", "meant", "not_meant"),
    [
        ("frontend", ["frontend", "frontend-7d9-x2", "frontend2"], ["my-frontend", "fronten"]),
        ("web-1", ["web-1", "web-1-x"], ["web-10", "web-0"]),
        ("cart-6c9", ["cart-6c9f7d5b8-x2x7l"], ["cart-6c91-x"]),
        ("pod/web", ["web"], ["web-0"]),
        ("po/web", ["web"], ["web-0"]),
        ("*-db", ["shop-db"], ["shop-db-0"]),
        ("cart-.*", ["cart-0"], ["cart"]),
        ("web,cart", ["web-0", "cart-0"], ["db-0"]),
        ("!web", ["cart-0"], ["web-0", "web"]),
        ("web,!web-1", ["web-0", "web-10"], ["web-1", "cart-0"]),
    ],
)
def test_names(written: str, meant: list[str], not_meant: list[str]) -> None:
    """-p takes what a pod's name begins with, and a number is not cut; pod/NAME is one pod; * stands for anything."""
    chosen = select(written).chosen()
    assert [name for name in meant + not_meant if chosen.matches("shop", name, "app", None)] == meant
    assert not chosen.matches("web", meant[0], "app", None)


@pytest.mark.parametrize("written", ["a|b", "^cart", "shop/cart", "node/a", "deploy/", "cart-[0-9]", "a b"])
def test_names_that_mean_nothing(written: str) -> None:
    """What could never be a pod's name is refused with what can."""
    with pytest.raises(UsageError, match="want a pod's name"):
        read_pods([written])


class Api:
    """An API server's objects by path, or the code of its refusal."""

    def __init__(self, **objects: Any) -> None:
        self.objects = objects
        self.asked: list[str] = []

    def get(self, path: str, **query: str) -> Any:
        """The object of that kind."""
        self.asked.append(path)
        *_, kind, name = path.split("/")
        found = self.objects.get(name if name in self.objects else kind)
        if isinstance(found, int):
            raise ApiError(found, "no")
        if found is None or (name not in self.objects and found["metadata"]["name"] != name):
            raise ApiError(404, "not found")
        if name in self.objects:
            wanted = query.get("fieldSelector", "").rpartition("=")[2]
            return {"items": [found] if not wanted or wanted == found["metadata"]["name"] else []}
        return found


def workload(selector: Any, name: str = "cart") -> dict[str, Any]:
    """An object with a selector."""
    return {"metadata": {"name": name, "namespace": "shop"}, "spec": {"selector": selector}}


CART = workload({"matchLabels": {"app": "cart"}, "matchExpressions": [{"key": "old", "operator": "DoesNotExist"}]})
PODS = {"metadata": {"name": "cart-6c9f-x", "namespace": "shop"}}


@pytest.mark.parametrize(
    ("written", "objects", "path", "labels"),
    [
        ("deploy/cart", {"deployments": CART}, "/apis/apps/v1/namespaces/shop/deployments/cart", "app=cart,!old"),
        ("deployment.apps/cart", {"deployments": CART}, "/apis/apps/v1/namespaces/shop/deployments/cart", "app=cart,!old"),
        ("sts/cart", {"statefulsets": CART}, "/apis/apps/v1/namespaces/shop/statefulsets/cart", "app=cart,!old"),
        ("ds/cart", {"daemonsets": CART}, "/apis/apps/v1/namespaces/shop/daemonsets/cart", "app=cart,!old"),
        ("job/cart", {"jobs": CART}, "/apis/batch/v1/namespaces/shop/jobs/cart", "app=cart,!old"),
        ("svc/cart", {"services": workload({"app": "x"})}, "/api/v1/namespaces/shop/services/cart", "app=x"),
    ],
)  # fmt: skip
def test_workloads(written: str, objects: dict[str, Any], path: str, labels: str) -> None:
    """deploy/cart and the like are the pods that its selector selects, also those that come later."""
    api = Api(**objects, pods=PODS)
    found = select(written).resolve(lambda name: find_pods(api, name, ["shop"]))  # type: ignore[arg-type]
    assert api.asked[0] == path
    assert found.any_of == (PodChoice(labels=labels, namespace="shop"),)
    assert found.whole_names == ("cart-6c9f-x",)  # for older agents


def test_workloads_of_all_namespaces() -> None:
    """With -A each namespace's own deployment of that name counts."""
    api = Api(deployments=CART, pods=PODS)
    found = select("deploy/cart", namespace="").resolve(lambda name: find_pods(api, name, []))  # type: ignore[arg-type]
    assert found.any_of == (PodChoice(labels="app=cart,!old", namespace="shop"),)


def test_workloads_that_are_not_there() -> None:
    """A workload that is not there is named with those that are; what I may not see, and what selects none, is told."""
    with pytest.raises(UsageError, match="-p deploy/card: there is none of that name in namespace shop; there is cart"):
        find_pods(Api(deployments=CART), read_pods(["deploy/card"])[0], ["shop"])  # type: ignore[arg-type]
    with pytest.raises(GadgetError, match="-p deploy/cart: you may not get deployments in namespace shop"):
        find_pods(Api(deployments=403), read_pods(["deploy/cart"])[0], ["shop"])  # type: ignore[arg-type]
    with pytest.raises(GadgetError, match="-p svc/cart: it selects no pods"):
        find_pods(Api(services=workload(None)), read_pods(["svc/cart"])[0], ["shop"])  # type: ignore[arg-type]
    for local in (True, False):
        with pytest.raises(UsageError, match="name pods, or use -l"):
            find_selection(select("deploy/cart"), [] if local else ["unix:///none"], local)


def test_a_workload_without_pods_is_not_everybody() -> None:
    """To an agent that knows whole names alone, a deployment that has no pods is nobody."""
    found = select("deploy/cart").resolve(lambda name: ([PodChoice(labels="app=cart")], []))
    older = found.message() | {"any_of": []}
    assert not AgentSelection(*(older[name] for name in ("namespaces", "pods"))).decide(pod("cart-0"), {})
    both = select("deploy/cart,web").resolve(lambda name: ([PodChoice(labels="app=cart")], []))
    assert [choice.pattern or choice.labels for choice in both.any_of] == ["web*", "app=cart"]


def pod(name: str) -> Container:
    """A container of a pod."""
    return Container("id", "containerd", "shop", name, "app", pod_uid="uid")


@pytest.mark.parametrize(
    ("name", "labels", "decided"),
    [
        ("web-0", None, True),
        ("cart-0", None, None),
        ("cart-0", {"app": "cart"}, True),
        ("cart-0", {"app": "db"}, False),
        ("web-1", {"app": "cart"}, False),
    ],
)
def test_what_agents_make_of_it(name: str, labels: dict[str, str] | None, decided: bool | None) -> None:
    """An agent decides by name at once, and by labels once it knows them."""
    sent = pb.Selection(
        **select("web,deploy/cart,!web-1").resolve(lambda name: ([PodChoice(labels="app=cart")], [])).message()
    )
    any_of = [PodChoice(item.pattern, item.labels, item.namespace, item.without) for item in sent.any_of]
    chosen = AgentSelection(sent.namespaces, sent.pods, sent.containers, sent.labels, any_of)
    assert chosen.needs_labels
    assert chosen.decide(pod(name), labels) is decided


@given(st.lists(st.builds(PodChoice, st.text(max_size=9), st.just(""), st.text(max_size=2), st.booleans()), max_size=9))
def test_any_pattern_is_taken(choices: list[PodChoice]) -> None:
    """No pattern of a client's breaks an agent."""
    assert ChosenPods(choices).matches("shop", "cart-0", None) in (True, False)


def test_too_many_patterns() -> None:
    """A client's choices are bounded, in number and in length; a pattern of stars takes no time to speak of."""
    for wrong in ([PodChoice("a")] * 1001, [PodChoice("a" * 513)]):
        with pytest.raises(UsageError, match="at most"):
            ChosenPods(wrong)
    assert not ChosenPods([PodChoice("*a" * 250 + "b")]).matches("shop", "a" * 253, None)
