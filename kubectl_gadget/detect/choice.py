"""Chooses among kept alerts, and explains why none was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from gadget._generated import gadget_pb2 as pb
from gadget.rules.alerts import at_least
from gadget.rules.files import PRIORITIES
from gadget.selector import parse_names
from kubectl_gadget.stream.nothing import like, where_of
from kubectl_gadget.stream.request import Selection

#: Names of rules, namespaces and pods that are remembered of alerts that were not asked for.
MOST_NAMES = 1000


class KeptChoice:
    """Chooses kept alerts, and remembers what others there are."""

    def __init__(self, selection: Selection, since_ns: int, priority: str | None, names: Sequence[str]) -> None:
        """Those of a selection since a time in ns, as urgent as priority, of rules of these names with * in them."""
        self._selection, self._since_ns, self._priority, self._names = selection, since_ns, priority, names
        self._pods, self._everywhere = selection.chosen(), selection == Selection()
        self._urgent = at_least(priority) if priority else frozenset(PRIORITIES)
        self._patterns = [name.lower() for name in names]
        self._others = 0
        self._rules, self._places = set[str](), set[tuple[str, str]]()

    def __call__(self, alert: pb.Alert) -> bool:
        """Whether an alert is asked for."""
        if alert.time_ns < self._since_ns:
            return False
        if self._of_rules(alert.rule) and alert.priority in self._urgent and self._of_pods(alert.container):
            return True
        self._others += 1
        if len(self._rules) < MOST_NAMES:
            self._rules.add(alert.rule)
        if len(self._places) < MOST_NAMES:
            self._places.add((alert.container.namespace, alert.container.pod))
        return False

    def why_nothing(self) -> str:
        """Why no alert was chosen, with similar names that exist; empty if there are no alerts at all."""
        if not self._others:
            return ""
        if self._names and not any(map(self._of_rules, self._rules)):
            asked = [name[:1].upper() + name[1:] for name in self._names]  # as names of rules begin
            return (
                f"no kept alert is of a rule {', '.join(map(repr, self._names))}; there is {like(asked, self._rules)}"
            )
        namespaces = {namespace for namespace, _ in self._places if namespace}
        near = {pod for namespace, pod in self._places if self._pods.in_namespaces(namespace)}
        if where := where_of(self._selection):
            if not near:
                wanted = sorted(parse_names(self._selection.namespaces).wanted)
                return f"no kept alert is of {where}; there is {like(wanted, namespaces) or 'none of a pod'}"
            where = f" in {where}"
        if self._selection.pods and not any(map(self._is_pod, self._places)):
            pods = like(self._selection.pods, near) or "none of a pod"
            return f"no kept alert is of a pod {', '.join(self._selection.pods)}{where}; there is {pods}"
        kept = f"{self._others} kept alert{' is' if self._others == 1 else 's are'}"
        return f"{kept} of other rules, priorities, pods or containers than those that were asked for"

    def _of_rules(self, name: str) -> bool:
        return not self._patterns or any(fnmatchcase(name.lower(), each) for each in self._patterns)

    def _of_pods(self, own: pb.Container) -> bool:
        return self._everywhere or bool(self._pods.matches(own.namespace, own.pod, own.container, None))

    def _is_pod(self, place: tuple[str, str]) -> bool:
        return bool(
            Selection(self._selection.namespaces, any_of=self._selection.any_of).chosen().matches(*place, "", None)
        )
