"""Chooses pods by patterns of their names, or by their labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import translate

from gadget.errors import UsageError
from gadget.selector import Requirement, parse_labels
from gadget.values import dataclass

#: How many choices an agent looks at for each container: clients do not need more.
MOST_CHOICES = 1000
LONGEST_PATTERN = 512


@dataclass(frozen=True)
class PodChoice:
    """Pods whose name fits a pattern of fnmatch(3), or that have labels, in one namespace or any; or all other pods."""

    pattern: str = ""
    labels: str = ""
    namespace: str = ""
    without: bool = False


class _Choice:
    """A PodChoice, ready to be asked."""

    def __init__(self, choice: PodChoice) -> None:
        self.without = choice.without
        self._namespace = choice.namespace
        # of 512 characters, as translate makes it, at most some milliseconds for a name of 253: its groups are atomic
        self._fits = re.compile(translate(choice.pattern)).match if choice.pattern else None
        self.labels: list[Requirement] = parse_labels(choice.labels)

    def matches(self, namespace: str, pod: str, labels: Mapping[str, str] | None) -> bool | None:
        if self._namespace and self._namespace != namespace:
            return False
        if self._fits and not self._fits(pod):
            return False
        if not self.labels:
            return True
        return None if labels is None else all(item.matches(labels) for item in self.labels)


class ChosenPods:
    """The pods of any choice that includes, without the pods of those that exclude; all pods without a choice."""

    def __init__(self, choices: Iterable[PodChoice] = ()) -> None:
        """UsageError if a choice makes no sense."""
        every = list(choices)
        if len(every) > MOST_CHOICES or any(len(item.pattern) > LONGEST_PATTERN for item in every):
            raise UsageError(f"-p: at most {MOST_CHOICES} choices, of {LONGEST_PATTERN} characters each")
        made = [_Choice(item) for item in every]
        self._wanted = [item for item in made if not item.without]
        self._unwanted = [item for item in made if item.without]
        self.needs_labels = any(item.labels for item in made)

    def matches(self, namespace: str, pod: str, labels: Mapping[str, str] | None) -> bool | None:
        """Whether a pod is chosen; None if that depends on labels that are not known (labels is None)."""
        wanted = _any(item.matches(namespace, pod, labels) for item in self._wanted) if self._wanted else True
        unwanted = _any(item.matches(namespace, pod, labels) for item in self._unwanted)
        if wanted is False or unwanted is True:
            return False
        return None if wanted is None or unwanted is None else True


def _any(answers: Iterable[bool | None]) -> bool | None:
    every = set(answers)
    return True if True in every else None if None in every else False
