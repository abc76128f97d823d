"""One `observe`: the session of a stream whose rows are flows."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gadget._generated import gadget_pb2 as pb
from gadget.schema import Column, Schema
from kubectl_gadget.observe.hubble import Flows
from kubectl_gadget.observe.lines import FIELDS, FlowLines, FlowText
from kubectl_gadget.observe.pairs import NEEDED, Pair, Pairs
from kubectl_gadget.output import Output, all_fields, find_form, text_of
from kubectl_gadget.stream.books import Node
from kubectl_gadget.stream.merge import TimedRow
from kubectl_gadget.stream.request import Request
from kubectl_gadget.stream.session import Session
from kubectl_gadget.stream.streams import Message
from kubectl_gadget.tell import tell

if TYPE_CHECKING:
    from kubectl_gadget.observe.endpoints import Endpoints
    from kubectl_gadget.observe.opinion import Decides
    from kubectl_gadget.observe.policies import Opinions


#: What forms that have a field for everything are told besides: of the row of the other end, and of policies.
OTHER = (
    Column("other_end", "endpoint", "the other end as it has itself: of a Service who served"),
    Column("other_pid", "pid", "process of the other end, as its host sees it"),
    Column("other_comm", "comm", "name of the other end's thread"),
)
OPINION = (
    Column("policy", "identity", "what --policy would do: allowed, denied, may be denied, not judged"),
    Column("policy_why", "identity", "the policies that allow it, or why they would not"),
)


class FlowSession(Session):
    """Shows flows as events are shown."""

    thing = "flow"
    form: type[FlowText] | None = None

    def _make_output(self, schema: Schema) -> Output:
        if self.form is None:
            return super()._make_output(schema)
        return self.form(self._request.gadget, all_fields(schema))


class LogSession(FlowSession):
    """Shows what is kept, or the last of it, and what comes; each flow once, or once for each end."""

    def __init__(
        self,
        request: Request,
        elsewhere: Any = None,
        *,
        form: type[FlowText] | None,
        once: bool,
        opinions: Opinions | None,
        endpoints: Endpoints | None,
        why_none: Callable[[], str] | None,
        decided: Sequence[Decides] = (),
    ) -> None:
        """Show flows in a form of their own, or in the request's; once: what both ends tell is one row.

        why_none tells why there can be none. Of opinions all of decided have to hold.
        """
        self.form, self._once, self._opinions, self._endpoints = form, once, opinions, endpoints
        has_room = form is None and not request.count_by and find_form(request.form).names is None
        self._extra = [*(OTHER if once and has_room else ()), *(OPINION if opinions and has_room else ())]
        super().__init__(replace(request, last=0, fields=[*request.fields, *self._extra]), elsewhere)
        self._why_none, self._decided = why_none, decided
        self._pairs: Pairs | None = None
        self._last: deque[Pair] | None = deque(maxlen=request.last) if request.last else None
        self._kept = 0
        self._verdicts: Counter[str] = Counter()

    def _what(self) -> str:
        bad = [f"{number:,} {verdict}" for verdict, number in self._verdicts.most_common() if verdict != "forwarded"]
        return super()._what() + (f" ({', '.join(bad)})" if bad else "")

    def _known(self, schema: Schema) -> dict[str, Column]:
        return {**super()._known(schema), **{each.name: each for each in self._extra}}

    def _make_output(self, schema: Schema) -> Output:
        output = super()._make_output(schema)
        if isinstance(output, FlowLines):
            output.remarks = [each.of for each in (self._endpoints, self._opinions) if each]
        if isinstance(output, Flows):
            output.judge = self._opinions.judge if self._opinions else None
        self._fields = [item.name for item in output.fields if item not in self._extra]
        self._width = len(self._fields)
        needed = [*(NEEDED if self._once else ()), *(FIELDS if self._extra or self._decided else ())]
        self._fields += [name for name in dict.fromkeys(needed) if name not in self._fields]
        known = all_fields(schema)
        self._texts = {name: text_of(known[name]) for name in ("protocol", "direction", "verdict")}
        if self._once:
            self._pairs = Pairs(self._fields, known)
        return output

    def _rows(self, target: str, node: Node, batch: pb.Batch) -> list[TimedRow]:
        return node.decoder.rows(batch, self._fields, node.filter)

    def _follow(self, messages: Iterable[Message], stop: Callable[[], None]) -> None:
        super()._follow(messages, stop)
        self._caught_up()

    def _caught_up(self) -> None:
        self._take_pairs(self._pairs.rest() if self._pairs else [])
        last, self._last = self._last, None
        if last is None:
            return
        if self._kept > len(last):
            tell(f"The last {len(last):,} of {self._kept:,} flows: --last N and --all show more, -f what comes.")
        self._write_pairs(list(last))

    def _left_out(self) -> Iterator[str]:
        yield from super()._left_out()
        if not self.shown and self._why_none and (why := self._why_none()):
            yield f"{why}."
        if self._opinions and not self._request.count_by:
            yield self._opinions.summary()

    def _show(self, rows: list[TimedRow]) -> None:
        if self._pairs is None:
            self._take_pairs([Pair(row, None) for row in rows])
            return
        self._pairs.add(rows, time.monotonic())
        self._take_pairs(self._pairs.ripe(None if self._backlog else time.monotonic()))

    def _take_pairs(self, pairs: Sequence[Pair]) -> None:
        if self._decided:
            pairs = [pair for pair in pairs if self._is_decided(pair)]
        if self._last is None:
            self._write_pairs(pairs)
        else:
            self._kept += len(pairs)
            self._last.extend(pairs)

    def _write_pairs(self, pairs: Sequence[Pair]) -> None:
        if self._request.max_events:
            pairs = pairs[: self._request.max_events - self.shown]
        if pairs and "verdict" in self._fields:
            at, text = self._fields.index("verdict"), self._texts["verdict"]
            self._verdicts.update(text(mine[1][at]) for mine, _ in pairs)
        shown = []
        for mine, other in pairs:
            row = mine[1][: self._width]
            if self.form:
                row = (*row, other[1][: self._width] if other else None)
            elif self._extra:
                row = (*row, *self._extras(mine, other))
            shown.append((mine[0], row, mine[2]))
        super()._show(shown)
        self._containers.update(other[2] for _, other in pairs if other)

    def _extras(self, mine: TimedRow, other: TimedRow | None) -> Iterator[Any]:
        """The values of the fields that rows have besides."""
        theirs = dict(zip(self._fields, other[1], strict=True)) if other else {}
        if OTHER[0] in self._extra:
            yield from (theirs.get(name) for name in ("src", "pid", "comm"))
        if self._opinions and OPINION[0] in self._extra:
            opinion = self._opinions.judge(*self._judged(mine, other))
            yield from (opinion.word, opinion.why)

    def _judged(self, mine: TimedRow, other: TimedRow | None) -> tuple[dict[str, Any], dict[str, str]]:
        """The row of a pair that policies are asked about, and its words."""
        row = dict(zip(self._fields, (other or mine)[1], strict=True))
        return row, {name: text(row[name]) for name, text in self._texts.items() if name in row}

    def _is_decided(self, pair: Pair) -> bool:
        assert self._opinions
        opinion = self._opinions.decide(*self._judged(*pair))
        return all(decides(opinion) for decides in self._decided)
