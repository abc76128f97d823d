"""A machine with containers, on which rules judge events that a test makes up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.containers.identity import Container
from agent.containers.tracker import Cgroup, Tracker
from agent.detect import watching
from agent.limits import RunBudget
from agent.run.choosing import Choosing
from agent.run.run import Run
from agent.run.runs import Runs
from agent.run.source import Source as AnySource
from agent.service import ServiceContext
from gadget import catalog
from gadget.container_facts import ContainerFacts
from gadget.rules import live
from tests.fakes import FakeJudge
from tests.unit.rules.test_rules import rule
from tests.unit.test_run import CONTAINERS, GADGET, Everything, Source

#: A cgroup of the host.
HOST = 99
RULES = rule("evt.type = execve", name="Shell") + rule("evt.type = connect", name="Talk")


class Machine:
    """Its tracker, and the runs that have begun there."""

    knows_labels, pods, generation, cgroups, worker = True, None, 0, "v2", SimpleNamespace(problem="")

    def __init__(self, folder: Path) -> None:
        self.folder, self.proc = folder, folder
        self.sources: list[Source] = []
        self.labels_of: dict[str, dict[str, str]] = {}
        self.refuses: Exception | None = None
        self.context = ServiceContext("node-a", cast(Tracker, self), folder, folder, runs=Runs(), budget=RunBudget())
        self.object = SimpleNamespace(programs=list)

    def begin(self, *_: Any) -> Run:
        if self.refuses:
            raise self.refuses
        self.sources.append(Source())
        return Run(cast(AnySource, self.sources[-1]), cast(Choosing, Everything(self.sources[-1])))

    def put(self, cgroup: int, count: int = 1) -> None:
        self.sources[-1].put(cgroup, count)

    def containers(self) -> list[Cgroup]:
        return [Cgroup(each, container, 1) for each, container in CONTAINERS.items()]

    def resolve(self, cgroup_id: int) -> Cgroup | None:
        if cgroup_id == HOST:
            return Cgroup(cgroup_id, None, 1)
        return Cgroup(cgroup_id, CONTAINERS[cgroup_id], 1) if cgroup_id in CONTAINERS else None

    def facts(self, cgroup: Cgroup) -> ContainerFacts:
        assert cgroup.container
        return ContainerFacts(cgroup.container, image="shop/web:1")

    def labels(self, container: Container) -> dict[str, str] | None:
        return self.labels_of.get(container.id)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine(tmp_path)
    monkeypatch.setattr(watching, "begin", made.begin)
    monkeypatch.setattr(live, "Judge", FakeJudge)
    monkeypatch.setitem(catalog._all().made, "detect", replace(GADGET, name="detect"))
    monkeypatch.setattr(FakeJudge, "broken", None)
    monkeypatch.setattr(FakeJudge, "made", [])
    yield made
    made.context.runs.finish()
