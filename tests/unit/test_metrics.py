"""Numbers for Prometheus."""

from __future__ import annotations

import json
import re
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from agent.metrics.service import MetricsService
from agent.metrics.settings import Settings
from agent.service import Number, Running
from gadget import exposition
from gadget.errors import UsageError
from kubectl_gadget.cluster import manifests
from tests.conftest import wait_until
from tests.prometheus import check, scraping


class Recorder(Running):
    """A service that lost something."""

    calls = 0

    def losses(self) -> dict[str, int]:
        return {"table full": 3, 'a "strange"\nreason': 2}

    def numbers(self) -> Iterator[Number]:
        type(self).calls += 1
        yield Number("alerts_total", "Alerts.", 7, {"rule": "Shell in a container"})
        yield Number("alerts_total", "Alerts.", 5, {"rule": "Other"})


class Broken(Running):
    """A service that cannot tell."""

    def numbers(self) -> Iterator[Number]:
        yield Number("halves", "Half of it.", 1)
        raise RuntimeError("on its way to its end")


def context(**services: Running) -> Any:
    containers = [SimpleNamespace(ended=False), SimpleNamespace(ended=True)]
    run = SimpleNamespace(gadget=SimpleNamespace(name="execsnoop"), subscribers=[1, 2])
    return SimpleNamespace(
        node="node-a",
        tracker=SimpleNamespace(containers=lambda: containers),
        runs=SimpleNamespace(all=lambda: [run]),
        running=services,
    )


@pytest.fixture
def served() -> Iterator[MetricsService]:
    """An agent's numbers at a port of loopback."""
    made = MetricsService(
        context(flows=Recorder(), broken=Broken()), Settings(listen="127.0.0.1:0", most_connections=2, seconds=0.5)
    )
    yield made
    made.close()


def ask(served: MetricsService, path: str = "/metrics", accept: str = "") -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{served.port}{path}", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def samples(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.values()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_numbers(served: MetricsService) -> None:
    """Prometheus gets what agents count, lose and cost; a service that cannot tell does not keep the others from it."""
    found = samples(ask(served))
    assert found["gadget_containers", ()] == 1
    assert found["gadget_streams", ("execsnoop",)] == 2
    assert found["gadget_lost_total", ("flows", "table full")] == 3
    assert found["gadget_lost_total", ('a "strange"\nreason', "flows")] == 2
    assert found["gadget_alerts_total", ("Shell in a container",)] == 7
    assert found["gadget_alerts_total", ("Other",)] == 5
    assert found["process_resident_memory_bytes", ()] > 1 << 20
    assert not any(name == "gadget_halves" for name, _ in found)


def test_both_forms(served: MetricsService) -> None:
    """Who asks for OpenMetrics gets that, others the older text."""
    assert ask(served, accept="application/openmetrics-text; version=1.0.0").endswith("# EOF\n")
    assert "# EOF" not in ask(served)


def test_nothing_else(served: MetricsService) -> None:
    """Another path has nothing."""
    with pytest.raises(HTTPError, match="404"):
        ask(served, "/debug")


def test_who_hangs(served: MetricsService) -> None:
    """Clients that connect and say nothing are cut, and keep nobody from the numbers for long."""
    silent = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(5)]
    began = time.monotonic()
    wait_until(lambda: _answers(served), "an answer")
    assert time.monotonic() - began < 8
    for each in silent:
        each.settimeout(10)
        assert each.recv(1) == b""
        each.close()


def _answers(served: MetricsService) -> bool:
    try:
        return "gadget_info" in ask(served)
    except OSError:
        return False


def test_a_flood(served: MetricsService) -> None:
    """Numbers are added up once a second at most, however often somebody asks."""
    Recorder.calls = 0
    for _ in range(20):
        ask(served)
    assert Recorder.calls < 10


@pytest.mark.parametrize("address", ["7071", "localhost", "unix:///run/x", "host:99999", ":7071"])
def test_mistyped(address: str) -> None:
    """An address that is none is told."""
    with pytest.raises(UsageError, match="want HOST:PORT"):
        MetricsService(context(), Settings(listen=address))


def test_prometheus(served: MetricsService, tmp_path: Path) -> None:
    """A real Prometheus takes the numbers, and its promtool finds nothing to complain of."""
    check(ask(served))
    with scraping(tmp_path, served.port) as value:
        assert wait_until(lambda: value("sum(gadget_alerts_total)"), "a scrape", 60) == 12


ROOT = Path(__file__).parents[2]


def test_page_and_dashboard() -> None:
    """The docs name each number that there is, and the dashboard asks only for such."""
    source = "".join(path.read_text() for path in (ROOT / "agent").rglob("*.py"))
    names = {f"gadget_{name}" for name in re.findall(r'Number\(\s*"(\w+)"', source)}
    page = (ROOT / "docs/metrics.md").read_text()
    assert names == set(re.findall(r"`(gadget_\w+)`", page)) and len(names) > 10
    dashboard = json.loads((ROOT / "manifests/dashboard.json").read_text())
    asked = {
        name.removesuffix("_bucket")
        for panel in dashboard["panels"]
        for name in re.findall(r"\bgadget_\w+", str(panel["targets"]))
    }
    assert asked <= names


def test_deployed() -> None:
    """Deploy --metrics has agents serve at their pod's own address, and says so to Prometheus; else nobody serves."""
    (*_, daemon_set) = manifests.render(manifests.Settings("image", metrics=True))
    template = daemon_set["spec"]["template"]
    (agent,) = template["spec"]["containers"]
    assert "--metrics=$(POD_IP):7071" in agent["args"]
    assert agent["ports"] == [{"name": "metrics", "containerPort": 7071}]
    assert template["metadata"]["annotations"]["prometheus.io/port"] == "7071"
    (*_, plain) = manifests.render(manifests.Settings("image"))
    assert "metrics" not in str(plain["spec"]["template"]["spec"]["containers"][0]["args"])


def test_many_forms() -> None:
    """Who names any number of forms does not have numbers added up for each; what others ask for is still there."""
    added = list[int]()

    class Adds(Collector):
        def collect(self) -> Iterator[Metric]:
            added.append(1)
            return iter(())

    registry = CollectorRegistry()
    registry.register(Adds())
    added.clear()
    forms = [f"application/openmetrics-text; version={number}.0.0" for number in range(1, 31)]
    with exposition.PageServer(("127.0.0.1", 0), registry, 1, 1.0, known_seconds=3600.0) as server:
        for accept in ["", *forms] * 2:
            server.page(accept)
        assert server.page(forms[0])[1].startswith("application/openmetrics-text")
        assert server.page(forms[-1])[1].startswith("text/plain")
    assert len(added) == exposition.MOST_FORMS
