"""Each default rule on system calls is fired by a real program in a pod, and usual work in another pod fires none."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.breaks import BY_PEOPLE, CAPABILITIES, CASES, HANDS, Alert, copies, rules, told, type_in
from tests.conftest import wait_until
from tests.e2e.conftest import BREAKS, IMAGE, OWN_CLUSTER, Namespace, gadget, nodes, objects

SPACE = "default-rules"
POD = {
    "image": BREAKS,
    "securityContext": {"capabilities": {"drop": ["ALL"], "add": CAPABILITIES}},
    "env": [{"name": "PATH", "value": "/usr/sbin:/usr/bin:/sbin:/bin"}],
}
#: Who starts programs in a pod: the one as long as it is there, then the other.
RUNTIME = ("runc", "containerd-shim")
#: An agent knows who began before it by /proc. Our nodes are in a pid namespace, so there it does not know their services.
ABOVE = {"proc.aname", "proc.container.aexepath", "proc.container.aname"} if OWN_CLUSTER else set()
#: What tells that all before it has been judged.
MARK = Alert("File below /etc is written by hand", "sh -c echo > /etc/mark", "/etc/mark", "runc")
URGENT = ("Emergency", "Alert", "Critical")


@pytest.fixture
def judged(deployed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The agents of all nodes judge by the default rules, which have copies where a real attack would do harm."""
    more = tmp_path_factory.mktemp("rules")
    (more / "copies.yaml").write_text(copies())
    deploy = ["deploy", "--image", IMAGE, "--privileged"]
    done = gadget(*deploy, "--detect", "default", "--detect", str(more))
    assert done.returncode == 0, done.stdout + done.stderr
    yield
    gadget(*deploy)


def kept(pod: str) -> list[dict[str, Any]]:
    """The alerts of a pod."""
    done = gadget("alerts", "-n", SPACE, "-p", pod, "-o", "json")
    return [each for each in map(json.loads, done.stdout.splitlines()) if each["output_fields"]["k8s.pod.name"] == pod]


def said(alert: dict[str, Any]) -> Alert:
    """What an alert says, with one name for those who start programs."""
    found = told(alert)
    return found._replace(parent="runc") if found.parent in RUNTIME else found


def wait_until_judged(space: Namespace) -> None:
    """Wait until an attack on each node is told: an agent is ready before all of what it watches by is attached."""
    beacons = [space.pod(f"beacon-{index}", node) for index, node in enumerate(nodes())]

    def all_told() -> bool:
        for beacon in beacons:
            space.run(beacon, "sh", "-c", "echo > /etc/beacon")
        return all(map(kept, beacons))

    wait_until(all_told, "the begin", 60)


@pytest.mark.usefixtures("judged")
def test_every_rule(make_namespace: Callable[[str], Namespace]) -> None:
    """Each default rule is fired in a pod: I read who did what, in which pod and image, who started it and what came
    before. Usual work in a pod beside it fires none.

    Rules on the load of a module into the kernel fire on loads that fail (IN_VAIN): the kernel is that of all nodes.
    """
    shop = make_namespace(SPACE)
    wait_until_judged(shop)
    pods = {name: shop.pod(name, node, *command, **POD) for name, node, command in (
        ("cart-0", nodes()[0], ()), ("calm-0", nodes()[-1], ("/launch", "daemon off;")))}  # fmt: skip
    go_in = ["kubectl", "exec", f"--namespace={SPACE}"]
    for pod, script in zip(pods, ("/all.sh", "/calm.sh"), strict=True):
        subprocess.run([*go_in, pod, "--", "/bin/sh", script], check=False, stdin=subprocess.DEVNULL)
    shop.run("cart-0", "/bin/sh")
    type_in(*go_in, "-it", "cart-0", "--", "/bin/sh", "-l")
    for pod in pods:
        shop.run(pod, "sh", "-c", "echo > /etc/mark")
    every = rules()
    wait_until(
        lambda: {MARK.rule, *every} == {each["rule"] for each in kept("cart-0")} and kept("calm-0"), "alerts", 90
    )
    assert [said(each) for each in kept("calm-0")] == [MARK]
    alerts = kept("cart-0")
    assert {said(each) for each in alerts} <= {MARK, *BY_PEOPLE, *(alert for case in CASES for alert in case.alerts)}
    (pod,) = (each for each in objects("pods", f"--namespace={SPACE}") if each["metadata"]["name"] == "cart-0")
    container = pod["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
    for each in alerts:
        fields, who = each["output_fields"], each["ancestry"]
        names = ("container.id", "k8s.ns.name", "container.image.repository", "user.name")
        whose = (container[:12], SPACE, BREAKS.rpartition(":")[0], "root")
        assert tuple(fields[name] for name in names) == whose and each["hostname"] == nodes()[0], each
        assert {name.partition("[")[0] for name in each["incomplete"]} <= ABOVE, each
        assert who[1]["name"] == fields["proc.pname"], each
        assert any(one["name"].startswith("containerd-shim") for one in who[1:]), each
        assert HANDS[0] in [one["command"] for one in who] or said(each) in (MARK, *BY_PEOPLE), each
    for each in {each["rule"]: each for each in alerts}.values():
        story = json.loads(gadget("alerts", "show", each["id"], "-o", "json").stdout)
        assert (story["namespace"], story["pod"], story["image"]) == (SPACE, "cart-0", BREAKS), story
        assert story["before"] and story["before"][0]["time"] <= story["time"], story
        asks = every[each["rule"]].history or each["priority"] in URGENT
        assert bool(story["calls"]) == bool(asks), (story["no_calls"], story)
