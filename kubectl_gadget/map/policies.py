"""What policies say of what was seen, for the page's tab: as `advise network-policy check` and `diff` tell it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gadget.kube.api import ApiServer
from kubectl_gadget.advise import check, diff
from kubectl_gadget.advise.advisor import advise
from kubectl_gadget.advise.collect import hear, look_up
from kubectl_gadget.advise.compile import compile_policy
from kubectl_gadget.advise.evaluate import Evaluator
from kubectl_gadget.advise.judge import flows_of, namespaces_of, policies_about, spans
from kubectl_gadget.advise.observation import Observation
from kubectl_gadget.advise.render import render_yaml
from kubectl_gadget.advise.talks import Settings
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.observe.policies import Policies, reader

#: For how long policies are not read again, and for how long what agents saw is not asked for again if policies are
#: the same: a page that asks often costs no more.
HOLDS_SECONDS, LASTS_SECONDS = 5.0, 60.0
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


def judging(
    targets: Targets, file: Path | None, namespaces: Sequence[str], api: ApiServer | None = None
) -> CachedAnswer:
    """Judges what agents saw, with what a cluster knows if there is one, by a file, else by the cluster's own policies.

    UsageError for a file that makes no sense.
    """
    read = reader(file, namespaces, api)
    if file:
        read()
    return CachedAnswer(
        read, lambda policies: judge(_seen(targets, policies, api, namespaces), [*map(dict, policies)], namespaces)
    )


def _seen(targets: Targets, policies: Policies, api: ApiServer | None, namespaces: Sequence[str]) -> Observation:
    heard = hear(targets)
    if api:
        look_up(api, heard.context, namespaces)
    return Observation(heard.context, heard.flows, by_address=Evaluator(policies, {}).looks_at_addresses)


class CachedAnswer:
    """Judges by the policies that there are, one call at a time. It keeps an answer for a while."""

    def __init__(self, read: Callable[[], Policies], ask: Callable[[Policies], dict[str, Any]]) -> None:
        """By the policies that read gives, as ask judges."""
        self._read, self._ask = read, ask
        self._lock = threading.Lock()
        self._policies: Policies = ()
        self._found: dict[str, Any] = {}
        self._read_ended = self._asked = 0.0
        self._number = 0

    def __call__(self, *, anew: bool = False) -> dict[str, Any]:
        """The answer, with a number of its own. anew: it may not be older than a moment."""
        with self._lock:
            if not self._found or time.monotonic() > self._read_ended + HOLDS_SECONDS:
                policies = self._read()
                self._read_ended = time.monotonic()
                is_old = time.monotonic() > self._asked + (HOLDS_SECONDS if anew else LASTS_SECONDS)
                if is_old or not self._found or policies != self._policies:
                    found = self._ask(policies)
                    self._number += 1
                    self._policies, self._asked = policies, time.monotonic()
                    self._found = {**found, "number": self._number}
            return self._found
