"""One story: from the runs of several gadgets to the last line that says how complete it was."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from gadget._generated import gadget_pb2 as pb
from gadget.errors import Unsupported, UsageError
from gadget.recorded import STORY
from gadget.schema import Row, Schema
from gadget.text import counted
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.output import Output
from kubectl_gadget.story.kinds import FORMS, ShownKind, recorded
from kubectl_gadget.story.lines import StoryDocuments, StoryLines, Teller
from kubectl_gadget.story.requests import make_requests
from kubectl_gadget.story.together import Together, key_of, parts_of
from kubectl_gadget.stream.books import Gap, Node
from kubectl_gadget.stream.containers import known_containers
from kubectl_gadget.stream.merge import Merge, TimedRow
from kubectl_gadget.stream.nothing import ExistingContainer
from kubectl_gadget.stream.peers import Look, add_names
from kubectl_gadget.stream.recording import Recording, Writer
from kubectl_gadget.stream.request import Request
from kubectl_gadget.stream.session import Session
from kubectl_gadget.stream.streams import Ended
from kubectl_gadget.tell import tell

#: How long a row waits for earlier ones of other runs: of the threads of many runs one is late on a busy node, and an
#: event in the wrong place makes another story.
HOLD_SECONDS = 0.5


class StorySession(Session):
    """Shows the events of several requests, each of another kind, and keeps the books of all. Its targets are runs."""

    def __init__(
        self,
        requests: Mapping[str, Request],
        chosen: Sequence[ShownKind],
        elsewhere: Callable[[], list[ExistingContainer] | None] | None = None,
    ) -> None:
        """Prepare to show what requests ask for, by kind."""
        first, *_ = requests.values()
        super().__init__(first, elsewhere)
        self._merge = Merge(HOLD_SECONDS)
        self._requests = requests
        self._chosen = {each.story.kind: each for each in chosen}
        self._tellers: dict[str, tuple[Node, Teller]] = {}
        self._kinds: Counter[str] = Counter()
        #: what was said last of each target, which all its runs say
        self._said: dict[str, str] = {}
        self._has_begun = False

    def _make_output(self, schema: Schema) -> Output:
        return StoryDocuments() if self._request.form == "json" else StoryLines([*self._chosen])

    def _started(self, target: str, name: str, started: pb.Started) -> None:
        super()._started(target, name, started)
        self._look_if_begun()

    def _ended(self, message: Ended) -> None:
        super()._ended(message)
        self._look_if_begun()

    def _look_if_begun(self) -> None:
        """Once all runs have begun that can, tell a person that from now on nothing is missing."""
        watching = self._live and not self._request.standing
        if watching and not self._has_begun and len(self._nodes.keys() | self._away.keys()) >= self._expected:
            self._has_begun = True
            begun = {parts_of(run)[0] for run in self._nodes}
            if begun and sys.stderr.isatty():
                tell(f"watching {', '.join(kind for kind in self._chosen if kind in begun)}")

    def _request_of(self, target: str) -> Request:
        return self._requests[parts_of(target)[0]]

    def _called(self, target: str) -> str:
        return parts_of(target)[1]

    def _place(self, target: str, node: Node) -> str:
        return f"{node.decoder.node}, {parts_of(target)[0]}"

    def _count_nodes(self) -> int:
        return len({parts_of(run)[1] for run in self._nodes})

    def _what(self) -> str:
        kinds = ", ".join(f"{number} {kind}" for kind, number in self._kinds.most_common())
        return f"{counted(self.shown, 'event')}{f' ({kinds})' if kinds else ''}"

    def _rows(self, target: str, node: Node, batch: pb.Batch) -> list[TimedRow]:
        known = self._tellers.get(target)
        if known is None or known[0] is not node:
            chosen = self._chosen[parts_of(target)[0]]
            every = self._request.form == "json"
            schema, named = node.decoder.schema, chosen.is_named
            known = node, Teller(chosen.gadget, chosen.story, schema, every=every, named=named)
            self._tellers[target] = known
        teller = known[1]
        rows = node.decoder.rows(batch, [item.name for item in teller.fields], node.filter)
        return [(time, (teller, values), container) for time, values, container in rows]

    def _write(self, rows: list[Row]) -> None:
        super()._write(rows)
        self._kinds.update([teller.kind for teller, _ in rows])

    def _tell_other_words(self, name: str, schema: Schema) -> None:
        """Each agent's events are shown in its own words."""

    def _tell_state(self, target: str, state: str, text: str) -> None:
        """Say it once for all runs on a target."""
        name = self._called(target)
        if self._said.get(name) != state:
            self._said[name] = state
            super()._tell_state(target, state, text)

    def _tell_away(self, target: str) -> None:
        if not self._is_beyond(target):
            super()._tell_away(target)
            return
        kind, name = parts_of(target)
        self._warn_once_of(kind, f"{name}: nothing of {kind}: {self._away[target].error}")

    def _warn_once_of(self, kind: str, text: str) -> None:
        """Tell what a node cannot, of each kind for one node."""
        if f"{kind} " not in self._warned:
            self._warned.add(f"{kind} ")
            tell(f"warning: {text}")

    def _is_beyond(self, target: str) -> bool:
        """Whether a run failed as its node lacks what the gadget needs, and nobody asked for just this kind."""
        ended, (kind, name) = self._away.get(target), parts_of(target)
        if ended is None or not isinstance(ended.error, Unsupported | UsageError) or self._chosen[kind].is_named:
            return False
        return any(parts_of(run)[1] == name for run in self._nodes)  # else it is the node that is not understood

    def _all_gaps(self) -> list[Gap]:
        """The same gap of all runs on a target is one."""
        beyond = {target for target in self._away if self._is_beyond(target)}
        by_target: dict[str, dict[str, list[Gap]]] = {}
        for gap in super()._all_gaps():
            if gap.target not in beyond:
                kind, name = parts_of(gap.target)
                by_target.setdefault(name, {}).setdefault(kind, []).append(gap)
        found = []
        for name, kinds in by_target.items():
            runs = {
                parts_of(run)[0]
                for run in (self._nodes.keys() | self._away.keys()) - beyond
                if self._called(run) == name
            }
            if kinds.keys() >= runs:
                longest = max(kinds.values(), key=lambda gaps: (len(gaps), sum(gap.seconds for gap in gaps)))
                found += [replace(gap, target=name) for gap in longest]
            else:
                alike: dict[tuple[Gap, ...], list[str]] = {}
                for kind in filter(kinds.get, self._chosen):
                    alike.setdefault(tuple(replace(gap, target=name) for gap in kinds[kind]), []).append(kind)
                for gaps, those in alike.items():
                    told = ", ".join(those)
                    found += [replace(gap, target=f"{name}, {told}", told=f"{told}: {gap.told}") for gap in gaps]
        return found

    def _left_out(self) -> Iterator[str]:
        """The page of `story` says what is left out by default; a kind that is named is whole."""
        return iter(())

    def _conclude(self, when: str) -> None:
        try:
            super()._conclude(when)
        finally:
            lacking: dict[str, list[str]] = {}
            for target in self._away:
                if self._is_beyond(target):
                    kind, name = parts_of(target)
                    lacking.setdefault(kind, []).append(name)
            for kind, names in lacking.items():
                if len(names) > 1:  # of one it has been told
                    more = f" and {len(names) - 5} more" * (len(names) > 5)
                    tell(f"nothing of {kind} from {', '.join(sorted(names)[:5])}{more}: not possible there")


def show(
    requests: Mapping[str, Request],
    chosen: Sequence[ShownKind],
    targets: Targets,
    runs: Together,
    directory: Look,
) -> None:
    """Show what the runs of requests send."""
    messages, (first, *_) = add_names(runs, directory), requests.values()
    session = StorySession(requests, chosen, None if first.standing else lambda: known_containers(targets))
    keys = [key_of(kind, target) for kind in requests for target in targets]
    with ExitStack() as stack:
        if first.record:
            kinds = {each.story.kind: each.is_named for each in chosen}
            messages = stack.enter_context(Writer(first.record, STORY, kinds)).keep(messages)
        session.run(messages, len(keys), runs.stop, live=True, targets=keys)


def check_form(what: str, form: str, of_fields: Sequence[str]) -> None:
    """UsageError if a story is to be in a form that it has not, or of_fields names options for columns."""
    for option in [*of_fields, *([f"-o {form}"] if form not in FORMS else [])]:
        raise UsageError(f"{option}: {what}, which has lines, or -o json")


def replay(recording: Recording, form: str, of_fields: Sequence[str], conditions: Sequence[str], **rest: Any) -> None:
    """Show a story's recording. UsageError if that is to be in another form, or of_fields names options for columns."""
    check_form(f"{recording.path} is of a story", form, of_fields)
    chosen = recorded({each.kind: each.in_full for each in recording.header.kinds})
    if not chosen:
        raise UsageError(f"{recording.path}: does not say what its story is of")
    StorySession(make_requests(chosen, {}, form, conditions, **rest), chosen).replay(recording)
