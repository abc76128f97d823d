"""Each default rule on system calls is fired by a real program in a real container, and usual work fires none."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.detect.shown import find_alert
from kubectl_gadget.detect.told import AlertStory
from tests.breaks import BY_PEOPLE, CAPABILITIES, CASES, EVERY_DAY, INSTALLS, copies, image, rules, told, type_in
from tests.conftest import Agent, Cli, events, run_cli, wait_until
from tests.pods import Container, Pod

NAMESPACE = "default-rules"
IMAGE = "registry.example.com/shop/cart"
#: All that is told of EVERY_DAY.
INSTALLED = [(INSTALLS, "apk"), (INSTALLS, "apt-get")]


@contextmanager
def overlay(container: Container, breaks: Path) -> Iterator[None]:
    """Give it a root as runtimes do: its image, and a layer of its own over it."""
    lower = container.bundle / "image"
    image(lower, breaks)
    root, upper, work = folders = [container.bundle / name for name in ("root", "upper", "work")]
    for folder in folders:
        folder.mkdir()
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", root], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", root], check=True)


def as_cri(config: dict[str, Any]) -> None:
    """What containerd writes for a pod that may do everything."""
    config["annotations"]["io.kubernetes.cri.image-name"] = f"{IMAGE}:1.2"
    config["root"]["path"] = "root"
    every = [f"CAP_{name}" for name in CAPABILITIES]
    config["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), every)


def whose(alert: dict[str, Any]) -> tuple[str, ...]:
    """Container, image and user of an alert."""
    fields = alert["output_fields"]
    return tuple(fields[name] for name in ("container.id", "k8s.ns.name", "container.image.repository", "user.name"))


def past(address: str, alert: dict[str, Any]) -> AlertStory:
    """What the agent keeps of an alert."""
    return AlertStory.of(find_alert(Targets({address: partial(str, address)}), alert["id"]))


def test_every_rule_is_tried() -> None:
    """Each rule on system calls has a program here that fires it."""
    assert {alert.rule for case in CASES for alert in case.alerts} | {alert.rule for alert in BY_PEOPLE} == {*rules()}


def test_default_rules(
    start_agent: Callable[..., Agent], start_cli: Callable[..., Cli], make_pod: Callable[..., Pod],
    workload: Callable[[str], Path], tmp_path: Path,
) -> None:  # fmt: skip
    """Each default rule fires on a real attack, and says who did it and what came before; usual work in a container, and its
    runtime, fire none.
    """
    more = tmp_path / "rules"
    more.mkdir()
    (more / "copies.yaml").write_text(copies())
    agent = start_agent("--detect", "default", "--detect", str(more))
    out, numbers = tmp_path / "alerts", count()
    given = ("--rules", "default", "--rules", str(more))
    with out.open("w") as file, ExitStack() as stack:
        cli = start_cli("detect", "--agent", agent.address, "-n", NAMESPACE, "-o", "json", *given, stdout=file)
        beacon = make_pod(NAMESPACE, "beacon").container("app", "/bin/sleep", "600")

        def seen(pod: str) -> list[dict[str, Any]]:
            whole = out.read_text().rpartition("\n")[0]
            return [each for each in events(whole) if each["output_fields"]["k8s.pod.name"] == pod]

        def is_judged() -> bool:
            before = len(seen("beacon"))
            beacon.exec("/bin/sh", "-c", f"echo > /etc/{next(numbers)}")  # each another alert
            deadline = time.monotonic() + 2
            while time.monotonic() < deadline and cli.process.poll() is None:
                if len(seen("beacon")) > before:
                    return True
                time.sleep(0.05)
            return False

        def prepared(pod: str, *args: str) -> Container:
            container = make_pod(NAMESPACE, pod).prepare("app", *args, change=as_cri)
            stack.enter_context(overlay(container, workload("breaks")))
            container.start()
            return container

        wait_until(is_judged, "the begin")
        calm = prepared("calm", "/launch", "daemon off;")
        below = prepared("calm-below-init", "/bin/tini", "/launch")
        cart = prepared("cart-0", "/bin/sleep", "600")
        for command in EVERY_DAY:
            subprocess.run(["runc", "exec", calm.id, *command], check=False, stdin=subprocess.DEVNULL)
        # a build on the node enters the container: what is above a container hides nothing in it
        subprocess.run(
            ["make", "-sf", "/dev/null", "--eval", f"all:; @runc exec {cart.id} /bin/sh /all.sh < /dev/null"],
            check=False,
        )
        subprocess.run(["runc", "exec", cart.id, "/bin/sh"], check=True, stdin=subprocess.DEVNULL)
        type_in("runc", "exec", "--tty", cart.id, "/bin/sh", "-l")
        wait_until(is_judged, "the end")
        assert all((each.bundle / "upper/etc/nginx/nginx.conf.old").exists() for each in (calm, below))
        _, err = cli.finish()
        assert "nothing lost" in err, err
    attacked = seen("cart-0")
    assert Counter(map(told, attacked)) == Counter([alert for case in CASES for alert in case.alerts] + list(BY_PEOPLE))
    assert {whose(each) for each in attacked} == {(cart.id[:12], NAMESPACE, IMAGE, "root")}
    assert not seen("calm-below-init")
    assert [(each["rule"], each["output_fields"]["proc.name"]) for each in seen("calm")] == INSTALLED

    def kept() -> list[dict[str, Any]]:
        done = run_cli("alerts", "--agent", agent.address, "-n", NAMESPACE, "-p", "cart-0", "-o", "json")
        return events(done.stdout)

    # equal alerts are told together after a minute, or at the end
    wait_until(lambda: {each["rule"] for each in kept()} == {each["rule"] for each in attacked}, "what is kept")
    assert not Counter(map(told, kept())) - Counter(map(told, attacked))
    for each in kept():
        who, whole = each["ancestry"], past(agent.address, each)
        assert who[1]["name"] == told(each).parent and "runc" in [one["name"] for one in who[1:]], each
        assert whole.happened and whole.happened[0].time_ns <= whole.alert.time_ns, each
        assert (whole.container.pod, whole.past.image) == ("cart-0", f"{IMAGE}:1.2")
