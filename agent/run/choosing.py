"""The step that knows containers: keeps the rows of those that are chosen, and holds what is not decided yet."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from agent.containers.identity import Container
from agent.containers.tracker import Cgroup, Tracker
from agent.run.batch import Loss, Rows, column
from agent.run.source import LOSSES, Source
from agent.selection import Selection
from gadget.kinds import CONTAINER

#: How long events of a pod wait for its labels, if those are asked for, and how much may wait. Whatever waits
#: longer is sent and counted, and so is what waits longest if more comes: a pod is never left out because we did not
#: know it, and its events stay in their order.
HELD_SECONDS = 2.0
HELD_BYTES = 8 << 20
#: How many containers have a count of missed events each. Further containers have one count together.
MISSED = 1024
#: What becomes of a row. Of a row of two containers the greater of two choices does.
DROP, MISS, HOLD, KEEP = range(4)


class Held(NamedTuple):
    """Rows that wait until a time (monotonic, seconds) for the labels of their pods."""

    until: float
    rows: Rows


class Choosing:
    """What becomes of each row, by the container that it is of."""

    def __init__(self, source: Source, tracker: Tracker, selection: Selection, held_bytes: int = HELD_BYTES) -> None:
        """Choose from source by selection, asking tracker; tells source's programs what is decided."""
        self._source, self._tracker, self._selection, self._held_bytes = source, tracker, selection, held_bytes
        schema = source.gadget.schema
        self._dtype, self._text_offset = schema.dtype(schema.text_offset), schema.text_offset
        self._has_text = "text_length" in (self._dtype.names or ())
        self._others = [field.name for field in schema.fields if field.means is CONTAINER]
        self._decided: dict[int, bool] = {}
        self._generation = -1
        self._held: list[Held] = []
        #: by cgroup, how many events there were that the user may have asked for: see Container.nameless
        self._missed: Counter[int] = Counter()
        self._met: dict[int, Container] = {}
        #: of rows that come again what became of them, by cgroup: of no more cgroups than there are rows
        self._before: dict[int, int] = {}
        #: rows that were kept although it is not known whether they were chosen
        self.undecided = 0

    def __call__(self, looked: list[Rows]) -> list[Rows]:
        """The chosen rows, as short as their text allows, and those held before that are chosen by now."""
        self._review()
        kept = self._release(everything=False)
        if looked and self._source.repeats:  # those that were counted before are among them
            self._missed.clear()
            self.undecided = 0
        for rows in looked:
            text = int(column(rows, self._dtype, "text_length").max()) if self._has_text else 0
            length = self._text_offset + text
            trimmed = rows[:, :length]
            choices = self._choices(rows)
            if choices is None:
                kept.append(trimmed)
                continue
            held = choices == HOLD
            if self._source.holds and held.any():
                self._hold(trimmed[held])
                choices[held] = DROP
            self.undecided += int((choices == HOLD).sum())
            kept.append(trimmed[choices != DROP])
        return [rows for rows in kept if len(rows)]

    @property
    def waiting(self) -> bool:
        """Whether rows are held."""
        return bool(self._held)

    def release(self) -> list[Rows]:
        """All that is held, decided or not."""
        return self._release(everything=True)

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Rows that are chosen within this come again: in the end no more are missed or undecided than before."""
        missed, undecided = self._missed.copy(), self.undecided
        yield
        self._missed, self.undecided = missed, undecided

    def met(self) -> dict[int, Container]:
        """By cgroup, the containers of the rows and losses since the last call."""
        met, self._met = self._met, {}
        return met

    def losses(self) -> list[Loss]:
        """The losses so far of containers that are chosen, or may be. The counts only grow."""
        totals, counts = self._source.losses()
        # other containers lost events before the kernel knew that they are not chosen: no loss of this run
        own = {cgroup for cgroup in counts if self._choose(cgroup) != DROP}
        losses = []
        for at, reason in enumerate(LOSSES):
            losses += [Loss(reason, cgroup, each[at]) for cgroup, each in counts.items() if each[at] and cgroup in own]
            # of a row of two containers only one is counted: what it is of may be the other, which is chosen
            counted = own if self._others else counts
            unknown = totals[at] - sum(counts[cgroup][at] for cgroup in counted)
            if unknown > 0:
                losses.append(Loss(reason, 0, unknown))
        losses += [Loss("container not known", cgroup, number) for cgroup, number in sorted(self._missed.items())]
        if missed := self._source.object.missed():
            losses.append(Loss("program busy", 0, missed))
        return losses

    def _choices(self, records: Rows) -> npt.NDArray[np.int8] | None:
        """DROP, KEEP or HOLD for each record; None if all are kept. A MISS is counted, then dropped."""
        ids: npt.NDArray[np.integer[Any]] = column(records, self._dtype, "cgroup_id")
        if self._others:
            return self._choices_of_either(records, ids)
        if (ids == ids[0]).all():  # a flood mostly comes from one cgroup: no need to sort
            choice = self._settle(int(ids[0]), len(ids))
            return None if choice == KEEP else np.full(len(ids), choice, np.int8)
        cgroups, index, counts = np.unique(ids, return_inverse=True, return_counts=True)
        each = zip(cgroups.tolist(), counts.tolist(), strict=True)
        choices = np.array([self._settle(cgroup_id, count) for cgroup_id, count in each], np.int8)
        return None if (choices == KEEP).all() else choices[index]

    def _choices_of_either(self, records: Rows, ids: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int8]:
        """The same where a row tells of further containers: it is chosen if one of them is, and all are named."""
        fields = [ids, *(column(records, self._dtype, name) for name in self._others)]
        found = [np.unique(field, return_inverse=True) for field in fields]
        each = [
            np.array([self._choose_row(cgroup) if cgroup else DROP for cgroup in cgroups.tolist()], np.int8)[index]
            for cgroups, index in found
        ]
        choices: npt.NDArray[np.int8] = np.maximum.reduce(each)
        missed = choices == MISS
        for cgroup, count in zip(*np.unique(ids[missed], return_counts=True), strict=True):
            self._miss(int(cgroup), int(count))
        choices[missed] = DROP
        for cgroup in np.unique(np.concatenate([field[choices != DROP] for field in fields])).tolist():
            known = self._tracker.resolve(cgroup) if cgroup else None
            if known and known.container and not known.container.sandbox:
                self._met[cgroup] = known.container
        return choices

    def _settle(self, cgroup_id: int, count: int) -> int:
        """What becomes of so many events of a cgroup."""
        choice = self._choose_row(cgroup_id)
        if choice == MISS:
            self._miss(cgroup_id, count)
            return DROP
        return choice

    def _miss(self, cgroup_id: int, count: int) -> None:
        """Count events that the user may have asked for."""
        room = cgroup_id in self._missed or len(self._missed) < MISSED
        self._missed[cgroup_id if room else 0] += count

    def _choose_row(self, cgroup_id: int) -> int:
        """What becomes of rows of a cgroup, and of those that come again when its container is forgotten."""
        choice = self._choose(cgroup_id)
        if self._source.repeats:
            self._before[cgroup_id] = choice
        return choice

    def _choose(self, cgroup_id: int) -> int:
        host = self._source.host
        cgroup = self._tracker.resolve(cgroup_id)
        if cgroup is None:  # perhaps of a container that came and went while more changed than could be followed
            return self._before.get(cgroup_id, KEEP if host else MISS)
        if cgroup.container is None or cgroup.container.sandbox:
            return KEEP if host else DROP
        decision = self._decide(cgroup)
        if decision is False and not cgroup.container.nameless:
            return DROP
        if decision is None and self._before.get(cgroup_id) == DROP:  # labels were known and are not now
            return DROP
        self._met[cgroup_id] = cgroup.container
        if decision is False:
            return MISS  # perhaps it is one of those that were asked for
        return HOLD if decision is None and self._before.get(cgroup_id) != KEEP else KEEP

    def _decide(self, cgroup: Cgroup) -> bool | None:
        decision = self._decided.get(cgroup.id)
        if decision is None and cgroup.container is not None:
            decision = self._selection.decide(cgroup.container, self._tracker.labels(cgroup.container))
            if decision is not None and not cgroup.ended:
                self._decided[cgroup.id] = decision
                if decision or not cgroup.container.nameless:  # else its events are counted here
                    self._source.object.set("chosen", cgroup.id, int(decision))
        return decision

    def _review(self) -> None:
        """Decide again on every container when one came, went or got other labels."""
        if self._generation == self._tracker.generation:
            return
        self._generation = self._tracker.generation
        for root, before in list(self._decided.items()):
            cgroup = self._tracker.resolve(root)
            if cgroup is None or cgroup.ended:
                del self._decided[root]
                self._source.object.delete("chosen", root)
            elif self._selection.needs_labels:
                del self._decided[root]
                if self._decide(cgroup) is None:  # labels were known and are not now: what was decided stays
                    self._decided[root] = before

    def _hold(self, rows: Rows) -> None:
        self._held.append(Held(time.monotonic() + HELD_SECONDS, rows))
        size = sum(held.rows.nbytes for held in self._held)
        for at, held in enumerate(self._held):
            if size <= self._held_bytes:
                return
            self._held[at] = Held(0.0, held.rows)  # sent with the next batch: shown rather than left out
            size -= held.rows.nbytes

    def _release(self, *, everything: bool) -> list[Rows]:
        """The held rows that are chosen by now, or have waited long enough."""
        released = []
        held, self._held = self._held, []
        for item in held:
            choices = self._choices(item.rows)
            if choices is None:
                released.append(item.rows)
            elif everything or time.monotonic() >= item.until:
                self.undecided += int((choices == HOLD).sum())
                released.append(item.rows[choices != DROP])
            else:
                released.append(item.rows[choices == KEEP])
                self._held.append(Held(item.until, item.rows[choices == HOLD]))
        self._held = [item for item in self._held if len(item.rows)]
        return [rows for rows in released if len(rows)]
