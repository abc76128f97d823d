"""What policies say of what was seen, for the page's tab: as `advise network-policy check` and `diff` tell it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gadget.kube.api import ApiError, ApiServer, not_allowed
from kubectl_gadget.advise import check, diff
from kubectl_gadget.advise.advisor import advise
from kubectl_gadget.advise.collect import PATHS, hear, look_up
from kubectl_gadget.advise.compile import compile_policy
from kubectl_gadget.advise.evaluate import Evaluator
from kubectl_gadget.advise.judge import flows_of, namespaces_of, policies_about, spans
from kubectl_gadget.advise.observation import Observation
from kubectl_gadget.advise.policy_files import read_policies
from kubectl_gadget.advise.render import render_yaml
from kubectl_gadget.advise.talks import Settings
from kubectl_gadget.agents.targets import Targets

#: How long an answer holds: a page that asks often costs agents no more.
HOLDS_SECONDS = 5.0
#: Flows that a page is told of: the denied ones first.
MOST_FLOWS = 5000


def judge(observation: Observation, policies: Sequence[dict[str, Any]], namespaces: Sequence[str]) -> dict[str, Any]:
    """The verdicts on what was seen, rules that nothing used, and what is advised instead."""
    settings = Settings(namespaces=tuple(namespaces))
    evaluator = Evaluator(policies, namespaces_of(observation))
    about = {*policies_about(evaluator.policies, observation, settings)}
    # names with their namespace, which check leaves out where it goes without saying
    flows = flows_of(observation, Settings(namespaces=(*namespaces, *namespaces)))
    result = check.check(evaluator, flows, about)
    span = (observation.span_ns(settings.since), spans(evaluator.policies, observation, settings))
    found: dict[str, Any] = json.loads("".join(check.to_json(result, *span)))
    advice = advise(observation, settings)
    advised = [each.to_dict() for each in advice.policies]
    asked = {*policies_about(map(compile_policy, policies), observation, settings), *map(diff.key, advised)}
    changes = diff.diff([each for each in policies if diff.key(each) in asked], advised)
    left = max(len(found["flows"]) - MOST_FLOWS, 0)
    return found | {
        "flows": found["flows"][:MOST_FLOWS],
        "left out": left,
        "policies": sorted("/".join(diff.key(each)) for each in policies if diff.key(each) in asked),
        "diff": diff.show(changes),
        "advised": render_yaml(advice),
        "notes": observation.context.notes,
    }


def read_file(targets: Targets, file: Path, namespaces: Sequence[str]) -> Callable[[], dict[str, Any]]:
    """Judges what agents saw by a file. UsageError for one that makes no sense."""
    policies = _of_file(file, namespaces)
    return lambda: judge(_seen(targets, policies), policies, namespaces)


def read_cluster(
    targets: Targets, api: ApiServer, file: Path | None, namespaces: Sequence[str]
) -> Callable[[], dict[str, Any]]:
    """The same with what a cluster knows, by its own policies if there is no file."""
    given = _of_file(file, namespaces) if file else None

    def ask() -> dict[str, Any]:
        policies = given
        if policies is None:
            try:
                policies = list(api.list(PATHS["NetworkPolicy"]))
            except ApiError as error:
                raise not_allowed(error, "list networkpolicies", "") from None
        return judge(_seen(targets, policies, api, namespaces), policies, namespaces)

    return ask


def _of_file(file: Path, namespaces: Sequence[str]) -> list[dict[str, Any]]:
    namespace = next((name for name in namespaces if not name.startswith("!")), "default")
    return read_policies(file, namespace).policies


def _seen(
    targets: Targets, policies: Sequence[dict[str, Any]], api: ApiServer | None = None, namespaces: Sequence[str] = ()
) -> Observation:
    heard = hear(targets)
    if api:
        look_up(api, heard.context, namespaces)
    return Observation(heard.context, heard.flows, by_address=Evaluator(policies, {}).looks_at_addresses)


class CachedAnswer:
    """Calls a slow function, one call at a time, and keeps its answer for a while."""

    def __init__(self, ask: Callable[[], dict[str, Any]]) -> None:
        """Ask by a function."""
        self._ask = ask
        self._lock = threading.Lock()
        self._found: dict[str, Any] = {}
        self._until = 0.0

    def __call__(self) -> dict[str, Any]:
        """The answer."""
        with self._lock:
            if time.monotonic() > self._until:
                self._found = self._ask()
                self._until = time.monotonic() + HOLDS_SECONDS
            return self._found
