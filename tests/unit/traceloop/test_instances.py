from __future__ import annotations

from itertools import count

import pytest

from gadget._generated import gadget_pb2 as pb
from gadget.errors import UsageError
from kubectl_gadget.agents.targets import Agent
from kubectl_gadget.traceloop.instances import Instance, choose, named, one_owner

_started = count(1)


def instance(
    pod: str,
    container: str,
    container_id: str,
    *,
    namespace: str = "shop",
    node: str = "node-a",
    status: int = 0,
    running: bool = False,
) -> Instance:
    """A recording that is newer than those made before."""
    who = pb.Container(namespace=namespace, pod=pod, container=container, id=container_id)
    item = pb.TraceloopItem(container=who, started_ns=next(_started), status=status, running=running)
    return Instance(Agent(node, ""), node, item)


def test_a_name_in_two_namespaces_deletes_nothing() -> None:
    """`delete` of a pod's name that two namespaces have names both and deletes neither."""
    shop, web = (instance("cart-0", "app", f"{name}1", namespace=name) for name in ("shop", "web"))
    with pytest.raises(
        UsageError, match=r"'cart-0' is shop/cart-0/app shop1 on node-a, web/cart-0/app web1 on node-a:"
    ):
        one_owner(named([shop, web], "cart-0"), "cart-0")
    assert one_owner(named([shop, web], "web/cart-0"), "web/cart-0") == [web]


def test_a_container_name_of_two_machines_deletes_nothing() -> None:
    """`delete` of a container's name that two machines without Kubernetes have names both and deletes neither."""
    found = [instance("", "db", f"{node}1", namespace="", node=node) for node in ("a", "b")]
    with pytest.raises(UsageError, match=r"'db' is db a1 on a, db b1 on b:"):
        one_owner(named(found, "db"), "db")
    assert one_owner(named(found[:1], "db"), "db") == found[:1]


def test_a_pod_is_deleted_whole() -> None:
    """`delete POD` deletes the recordings of all its containers and restarts."""
    found = [instance("cart-0", name, f"{number}") for number, name in enumerate(("app", "app", "istio"))]
    assert one_owner(named(found, "cart-0"), "cart-0") == found


def test_the_beginning_of_two_ids_is_refused() -> None:
    """The beginning of several ids is no choice, neither for `show` nor for `delete`: all of them are listed."""
    found = [instance("cart-0", "app", f"aaaa{last}") for last in "12"]
    with pytest.raises(
        UsageError, match=r"'aaaa' begins several ids: shop/cart-0/app aaaa1 on .*, .* aaaa2 on node-a$"
    ):
        named(found, "aaaa")
    assert named(found, "aaaa2") == found[1:]
    assert named([found[0], found[0]], "aaaa") == [found[0], found[0]]  # one of them saved by an older agent


def test_previous_is_of_the_container_that_crashed() -> None:
    """Of a pod with sidecars of which one container crashed, --previous is that container's last but one."""
    older, crashed = instance("cart-0", "app", "1"), instance("cart-0", "app", "2", status=11)
    istio = [instance("cart-0", "istio", number, running=number == "4") for number in "34"]
    found = [older, crashed, *istio]
    assert choose(found, "cart-0", 0, False) is crashed
    assert choose(found, "cart-0", 0, True) is older
    with pytest.raises(UsageError, match="shop/cart-0/app has one recorded run"):
        choose([crashed, *istio], "cart-0", 0, True)
    with pytest.raises(UsageError, match="'cart-0' is 2 containers: shop/cart-0/app, shop/cart-0/istio"):
        choose(found, "cart-0", 1, False)


def test_no_such_run() -> None:
    """If I ask for an earlier run than is recorded I am told how many there are; without a name, to give one."""
    runs = [instance("cart-0", "app", number, status=256) for number in "123"]
    with pytest.raises(UsageError, match=r"^shop/cart-0/app has 3 recorded runs: the oldest is --instance 3$"):
        choose(runs, "cart-0", 4, False)
    with pytest.raises(
        UsageError, match=r"^2 containers are recorded: .*: choose one by its name, with -n, -c or by id$"
    ):
        choose([*runs, instance("web-0", "app", "4")], "", 2, False)


def test_misspelt_beginning() -> None:
    """If I misspell the beginning of a long name I am told the name that I may have meant, and no other."""
    found = [instance(name, "app", name) for name in ("cart-6c9f7d5b8-x2x7l", "web-0", "inventory-0")]
    for wrong in ("crat-6c9f", "cart-6c9d"):
        with pytest.raises(UsageError, match=f"^no recording of '{wrong}': there is cart-6c9f7d5b8-x2x7l$"):
            named(found, wrong, begins=True)
    with pytest.raises(UsageError, match=r"there is cart-6c9f7d5b8-x2x7l, inventory-0, web-0$"):
        named(found, "zzz", begins=True)
    found.append(instance("", "aaa", "0123456789ab"))
    with pytest.raises(UsageError, match=r"there is cart-6c9f7d5b8-x2x7l, inventory-0, web-0, \S*aaa$"):
        named(found, "zzz", begins=True)


def test_names_cannot_break_a_terminal() -> None:
    """What containers are called is escaped where candidates are listed and deletions told."""
    hostile = instance("cart\x1b[2J", "a\nb", "cccc\x9b", node="node\x07")
    assert hostile.title.isprintable()
    for wrong in ("cart", "xxxx"):
        with pytest.raises(UsageError) as refused:
            named([hostile], wrong)
        assert str(refused.value).isprintable()
    with pytest.raises(UsageError) as refused:
        one_owner([hostile, instance("x\ty", "", "1")], "x")
    assert str(refused.value).isprintable()
