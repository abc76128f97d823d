"""Alerts on a terminal: what I see first of them, and how wide they are."""

from __future__ import annotations

import time
from typing import Any

import pytest

from gadget.rules.alerts import Alert
from gadget.rules.messages import SentRule
from kubectl_gadget.detect.written import texts
from kubectl_gadget.output import terminal

NOW = time.time_ns()
CLOCK = time.strftime("%H:%M:%S", time.localtime(NOW // 10**9))
WHO = "shop/cart-6c9f7d5b8-x2x7l (cart)"
TEXT = (
    "Container spoke to the container runtime | user=root socket=/run/docker.sock command=%s target=<NA> "
    "container=0123456789ab image=registry.example.com/shop/cart namespace=shop pod=cart-6c9f7d5b8-x2x7l"
)


def alert(command: str = "speak /run/docker.sock", name: str = "Container speaks to the runtime", **more: Any) -> Alert:
    said = SentRule(name, more.pop("priority", "Warning"), "syscall", frozenset())
    text = more.pop("text", TEXT % command)
    return Alert(said, NOW, text, {"proc.cmdline": command}, **{"id": "k7m2qp4", **more})


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives the lines of an alert on a terminal of some width; 0 for a pipe."""

    def show(of: Alert, columns: int, who: str = WHO, *, kept: bool = True) -> list[str]:
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdout.isatty", lambda: columns > 0)
            patch.setattr(terminal, "columns", lambda: columns)
            patch.setattr(terminal, "has_colours", lambda: columns > 0)
            return texts("columns", kept=kept)(of, who).splitlines()

    return show


def test_narrow(shown: Any) -> None:
    """On 80 columns the first line says when, how urgent and what; then comes which pod, and what was done there."""
    assert shown(alert(), 80) == [
        f"{CLOCK}  k7m2qp4  Warning    Container speaks to the runtime",
        "  shop/cart-6c9f7d5b8-x2x7l (cart) | user=root socket=/run/docker.sock",
        "  command=speak /run/docker.sock",
    ]


def test_wide(shown: Any) -> None:
    """Where there is room the pod is in the first line. An alert that is not kept has no id."""
    assert shown(alert(id=""), 200, kept=False) == [
        f"{CLOCK}  Warning    Container speaks to the runtime  {WHO}",
        "  user=root socket=/run/docker.sock command=speak /run/docker.sock",
    ]


def test_pipe(shown: Any) -> None:
    """In a pipe an alert is one line, with the image."""
    assert shown(alert(count=3), 0) == [
        f"{CLOCK}  k7m2qp4  Warning        {WHO}  Container speaks to the runtime | user=root socket=/run/docker.sock "
        "command=speak /run/docker.sock image=registry.example.com/shop/cart (3 times)"
    ]


def test_outside_pods(shown: Any) -> None:
    """A container that is in no pod is told with its image, and an event of a node with all it has."""
    assert "image=registry.example.com/shop/cart" in " ".join(shown(alert(), 80, "web"))
    assert "container=0123456789ab" in " ".join(shown(alert(), 80, ""))


@pytest.mark.parametrize("columns", [40, 80, 131])
def test_script_as_argument(shown: Any, columns: int) -> None:
    """A script as an argument is cut in the middle, so that it hides nothing; no line is wider than the terminal."""
    lines = shown(alert("sh -c " + "echo x; " * 1000 + "rm -rf /"), columns)
    assert max(map(len, lines)) <= columns and "…" in " ".join(lines) and lines[-1].endswith("rm -rf /")
    assert len(" ".join(lines)) < 400


def test_urgent(shown: Any) -> None:
    """The first line of what is urgent is red, and the rest is not."""
    first, *rest = shown(alert(priority="Critical", name="Container speaks " * 6), 80)
    assert first.startswith("\x1b[31m") and rest[0].startswith("\x1b[31m")  # the rule goes on in the second one
    assert not any("\x1b" in line for line in rest[1:])


def test_other_rules(shown: Any) -> None:
    """What rules say that are not in Falco's way is told whole, and their name but once."""
    (line, _) = shown(alert(text="container speaks to the runtime: docker"), 80)
    assert line.endswith("  container speaks to the runtime: docker")
    assert shown(alert(text="docker"), 80)[1] == f"  {WHO} | docker"
    assert shown(alert(text="docker"), 0)[0].endswith("Container speaks to the runtime: docker")


def test_more(shown: Any) -> None:
    """How often it happened stands beside the rule, and what is not known behind all else."""
    first, *_, last = shown(alert(count=3, incomplete=("proc.pname",)), 80)
    assert first.endswith("runtime (3 times)") and last.endswith("(not known: proc.pname)")
    assert f"(2 more since {CLOCK})" in shown(alert(count=2, since_ns=NOW), 200)[0]
    assert shown(alert(text="<NA>"), 80, "") != []


def test_moves_no_cursor(shown: Any) -> None:
    """Nothing that a process calls itself moves the cursor."""
    lines = shown(alert("x\x1b[2Jy", name="A\x1b[1m rule"), 80, "shop/\x1b[7mcart")
    assert "\x1b" not in "".join(lines)
