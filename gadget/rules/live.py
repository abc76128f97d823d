"""Judges what happens: batches of the gadget `detect` against rules.

An event's process, descriptor and call are looked up by their bytes. Each distinct one is made an object once, and
rules are asked once for each (gadget/rules/batch.py). Python's work grows with what differs, not with the number of
events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gadget.rules.alerts import Alert
from gadget.rules.batch import CALL, DESCRIPTOR, PROCESS, BatchRules, EventBatch, Places, Rows, table_of
from gadget.rules.calls import CallFields, Values
from gadget.rules.checks import checks, names
from gadget.rules.containers import HOST, UNKNOWN
from gadget.rules.fields import SYSCALL
from gadget.rules.keys import Ids, Keys, Words
from gadget.rules.outputs import RuleOutput
from gadget.rules.processes import Ancestor, Key, KnownProcess, Now, Processes, ProcessRow, ProcessSurroundings
from gadget.rules.recent import Happened, Recent
from gadget.rules.ruleset import Rule, Ruleset
from gadget.rules.sections import Packed, Section, decoded, joined, spans
from gadget.schema import Field, Schema

EXECS, ENDS = ("execve", "execveat"), "procexit"
#: What tells of processes and is asked of no rule.
_STATES = ("fork", "change")
#: What tells of processes.
STATES = (*_STATES, *EXECS, ENDS)
#: Calls that are many: a recording has them only if its rules ask about them.
_MANY = ("recvfrom", "recvmsg")
#: Rows of a table, and about the bytes that all tables take; with more they begin anew.
MOST_ROWS, MOST_BYTES = 65_536, 64 << 20
#: About what a row takes, and how often it has its texts: in its key, and, in 2 bytes each, as passed and as a path.
_ROW_BYTES, _COPIES = 1024, 5
#: Alerts that one rule makes of one container in one batch. Those beyond are counted with the last.
MOST_ALERTS = 256
#: The numbers of an event that decide which row of a table it has.
_OF_KEY = ("pid", "start", "exec_id")
_OF_NOW = ("cgroup_id", "euid", "egid", "loginuid", "tty", "cap_effective", "cap_permitted")
_OF_PROCESS = (*_OF_KEY, *_OF_NOW)
#: The fields that are names of addresses.
DOMAINS = tuple(f"fd.{which}ip.name" for which in "sclr")
#: How the fields begin that are labels of a pod.
LABEL = "k8s.pod.label"
#: What a new process has from the one that forked it.
_INHERITED = ("name", "arguments", "upper_layer", "memfd", "writable", "inode", "ctime", "mtime", "environment")
_OF_DESCRIPTOR = ("call", "fd_type", "protocol", "family", "src", "dst", "path", "to")
_OF_CALL = ("call", "result", "fd", "flags", "mode", "exe_upper_layer", "exe_memfd", "exe_writable")
#: The argument that a rule may ask the table of calls about.
_ARGUMENT = {"socket": 0, "ptrace": 0, "bpf": 0, "unshare": 0, "setns": 1}


class _Calls(Sequence[CallFields]):
    """The events of a batch. Each object is made when somebody asks for it."""

    def __init__(self, number: int, make: Callable[[int], CallFields]) -> None:
        self._number, self._make = number, make

    def __len__(self) -> int:
        return self._number

    def __getitem__(self, at: Any) -> Any:
        return self._make(at)


#: What Falco adds to outputs unless it is told not to (init_falco_engine.cpp).
_ADDED = {
    name.replace(".", "_"): name
    for name in (
        "container.id",
        "container.name",
        "container.image.repository",
        "container.image.tag",
        "k8s.pod.name",
        "k8s.ns.name",
    )
}


class WholeEvent:
    """An event as a whole."""

    def __init__(self, call: CallFields) -> None:
        self._call = call

    def get(self, key: str, /) -> Any:
        """The value of a field; None if it is missing."""
        return (self._call.process if table_of(key) == PROCESS else self._call).get(key)


class Judge:
    """Knows the processes, and what rules say of their events."""

    def __init__(
        self,
        rules: Ruleset,
        schema: Schema,
        surroundings: ProcessSurroundings,
        *,
        first: bool = False,
        host: bool = False,
        remember: bool = False,
        most_rows: int = MOST_ROWS,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """Judge events in a schema, also those outside containers with host.

        With remember alerts have what their container did before.
        """
        self._schema, self._surroundings, self._host = schema, surroundings, host
        self._most_rows, self._most_bytes = most_rows, most_bytes
        self._names = names_of_calls(schema)
        self._tables = Rows(), Rows(), Rows()
        self._keys = Keys(), Keys(), Keys()
        columns = {CALL: _OF_CALL, PROCESS: _OF_PROCESS, DESCRIPTOR: _OF_DESCRIPTOR}
        self._spans = {table: spans(schema[name] for name in names) for table, names in columns.items()}
        self._key_spans = spans(schema[name] for name in _OF_KEY)
        self._states = np.array([name in STATES for name in self._names])
        self._change_call = self._names.index("change")
        self._arguments = np.array([_ARGUMENT.get(name, -1) for name in self._names])
        self.processes = Processes(surroundings.process)
        self._recent = Recent(schema, self._names, self._inside) if remember else None
        self._before: Judge | None = None
        self._clock_ns, self._has_begun = 0, False
        #: events that rules were asked about
        self.judged = 0
        self.use(rules, first=first)

    def use(self, rules: Ruleset, *, first: bool = False) -> None:
        """Go on with other rules; what is known of processes stays."""
        self._rules = BatchRules(rules, self._tables, first=first)
        wanted = frozenset[str]().union(*(rule.types for rule in _asked(rules)))
        self._wanted = np.array([name in wanted and name not in _STATES for name in self._names])
        self._fields = {rule.name: _fields(rule) for rule in _asked(rules)}
        self._outputs = {rule.name: _whose(rule.output) for rule in _asked(rules)}
        #: settings of the gadget: what these rules need
        self.parameters = parameters(rules, self._names, host=self._host)

    def begin(self) -> None:
        """Take in the processes that run, once the programs are at work, which tell of who begins from then on.

        The sooner the better: who has ended by then is not known. The first batch comes too late for that.
        """
        if not self._has_begun:
            self._has_begun = True
            self.processes.know(self._surroundings.running())

    def go_on_from(self, before: Judge) -> None:
        """Take over, from the next batch on, what an earlier judge knows of containers."""
        self._before = before

    @property
    def recorded(self) -> dict[str, str]:
        """Settings of the gadget for a recording that other rules may judge later."""
        asked = self.parameters["calls"].split(",")
        words = [name.replace("_", " ") for name in self._names if name not in (*_STATES, ENDS)]
        return {**self.parameters, "calls": ",".join(each for each in words if each in asked or each not in _MANY)}

    def lacking(self, recorded: Mapping[str, str]) -> list[str]:
        """What the rules ask about and a recording with these settings lacks."""
        calls = set(self.parameters["calls"].split(",")) - set(recorded.get("calls", "").split(","))
        others = {"buffers": "evt.buffer", "environment": "proc.env", "host_calls": "calls outside containers"}
        on = (name for name in others if self.parameters[name] == "true" != recorded.get(name))
        return [*sorted(calls), *(others[name] for name in on)]

    def judge(self, sections: Iterable[Packed], clock_offset_ns: int) -> list[Alert]:
        """The alerts of a batch, the earliest first. Times since boot lack so many nanoseconds."""
        alerts = (
            alert
            for rule, places, batch in self.fired(sections, clock_offset_ns)
            for alert in self._grouped(rule, places, batch)
        )
        return sorted(alerts, key=lambda alert: alert.time_ns)

    def fired(self, sections: Iterable[Packed], clock_offset_ns: int) -> Iterator[tuple[Rule, Places, EventBatch]]:
        """The rules that fire on a batch, and on which of its events."""
        self._clock_ns = clock_offset_ns
        self.begin()
        found = [Section.of(self._schema, packed) for packed in sections if packed.count]
        if self._recent and (before := self._before) and before._recent:
            self._recent.inherit(before._recent)
        self._before = None
        self._follow(found)
        self._make_room()
        if self._recent:
            for each in found:
                self._recent.note(each)
        for each in found:
            yield from self._fired(each)
        if self._recent:  # alerts are made by now
            self._recent.settle()

    def containers_changed(self) -> None:
        """What is known of containers has changed: rules that ask about them are asked anew."""
        self._clear()

    # processes

    def _follow(self, sections: Sequence[Section]) -> None:
        """Take in forks, execs and ends of processes, in their order."""
        changes = [
            (int(section.rows["timestamp"][at]), section, at)
            for section in sections
            for at in self._states_of(section).tolist()
        ]
        changes.sort(key=lambda change: change[0])
        for _, section, at in changes:
            name = self._names[section.rows["call"][at]]
            if name == ENDS:
                self.processes.end(_key(section.rows[at]), int(section.rows["timestamp"][at]))
            elif name == "change":
                self._change(section, at)
            else:
                self.processes.add(self._begun(section, at, is_exec=name in EXECS), int(section.rows["timestamp"][at]))
        if changes:
            self.processes.forget(changes[-1][0])

    def _states_of(self, section: Section) -> Places:
        """What tells of processes. Of changes of a program the last: it may make a million a second."""
        calls, worked = section.rows["call"], section.rows["result"] >= 0
        changes = np.flatnonzero((calls == self._change_call) & worked)[::-1]
        others = np.flatnonzero(self._states[calls] & worked & (calls != self._change_call))
        if len(changes) > 1:
            keys = section.words(self._key_spans)[changes]
            _, last = np.unique(keys.view(f"V{8 * keys.shape[1]}")[:, 0], return_index=True)
            changes = changes[last]
        return np.concatenate([others, changes])

    def _begun(self, section: Section, at: int, *, is_exec: bool) -> KnownProcess:
        """The program of a process that was forked, or has begun another one."""
        row, key = section.rows[at], _key(section.rows[at])
        ancestors = self._ancestors(row)
        program = KnownProcess(key, section.comm(at), ancestors)
        if is_exec:
            text = section.text(at, row["arguments"])
            program.arguments = tuple(decoded(text).removesuffix("\0").split("\0")) if text else ()
            program.upper_layer, program.memfd = bool(row["exe_upper_layer"]), bool(row["exe_memfd"])
            program.writable, program.inode = bool(row["exe_writable"]), int(row["exe_ino"])
            program.ctime, program.mtime = int(row["exe_ctime"]), int(row["exe_mtime"])
            program.environment = decoded(section.text(at, row["env"])) or None
        elif forker := self._forker(row):
            for name in _INHERITED:
                setattr(program, name, getattr(forker, name))
        program.path = section.path(at, row["exe"]) or None
        self._place(program, section, at)
        return program

    def _forker(self, row: Any) -> KnownProcess | None:
        """The program that forked: of the parent, unless the call asked for another one (CLONE_PARENT)."""
        if row["forker"]:
            return self.processes.running(int(row["forker"]), int(row["forker_start"]))
        return self.processes.running(int(row["ppid"]), int(row["parent_start"]))

    def _ancestors(self, row: Any) -> tuple[Ancestor, ...]:
        if not row["ppid"]:
            return ()
        pid, start = int(row["ppid"]), int(row["parent_start"])
        parent = self.processes.running(pid, start)
        if parent is None:
            parent = self.processes.get(Key(pid, start, int(row["parent_exec_id"])), "")
        return parent.below()

    @staticmethod
    def _place(program: KnownProcess, section: Section, at: int) -> None:
        row = section.rows[at]
        program.cwd = section.path(at, row["cwd"]) or program.cwd
        program.vpid, program.vpgid = int(row["vpid"]), int(row["vpgid"])
        program.pgid, program.sid = int(row["pgid"]), int(row["sid"])

    def _change(self, section: Section, at: int) -> None:
        key = _key(section.rows[at])
        program = self.processes.get(key, section.comm(at))
        self._place(program, section, at)
        self.processes.weigh(program)
        for each in program.rows:
            self._keys[PROCESS].forget(each)
        program.rows.clear()

    # events

    def _make_room(self) -> None:
        longest = max(len(table.rows) for table in self._tables)
        size = sum(each.size for each in (*self._tables, *self._keys))
        if longest > self._most_rows or size > self._most_bytes:
            self._clear()

    def _clear(self) -> None:
        """Begin the tables anew, all at once, as the rows of one hold those of another."""
        for row in self._tables[PROCESS].rows:
            assert isinstance(row, ProcessRow)
            row.process.rows.clear()
        for table, keys in zip(self._tables, self._keys, strict=True):
            table.clear()
            keys.clear()

    def _fired(self, section: Section) -> Iterator[tuple[Rule, Places, EventBatch]]:
        """The rules that fire on events of a section."""
        section = section.only(self._schema, self._wanted[section.rows["call"]])
        if not self._host and len(section):
            section = section.only(self._schema, self._inside(section.rows["cgroup_id"]))
        if not len(section):
            return
        first_number = self.judged + 1
        self.judged += len(section)
        of_process = self._process_ids(section)

        def call(at: int) -> CallFields:
            row = self._tables[PROCESS].rows[of_process[at]]
            assert isinstance(row, ProcessRow)
            return CallFields(self._values(section, at), first_number + at, row)

        def look_up(table: int, keys: Words) -> Ids:
            rows, lengths = self._tables[table], section.rows["text_length"]
            return self._keys[table].ids(keys, lambda at: rows.add(call(at), _ROW_BYTES + _COPIES * int(lengths[at])))

        ids = look_up(CALL, self._call_keys(section)), of_process, look_up(DESCRIPTOR, self._descriptor_keys(section))
        batch = EventBatch(self._names, section.rows["call"], ids, _Calls(len(section), call))
        for rule, fired in self._rules.matching(batch):
            yield rule, fired, batch

    def _grouped(self, rule: Rule, fired: Places, batch: EventBatch) -> Iterator[Alert]:
        """An alert for each process and descriptor that a rule fired on, with how often it did."""
        _, process, descriptor = (ids[fired].astype(np.uint64) for ids in batch.ids)
        _, first, counts = np.unique(process << np.uint64(32) | descriptor, return_index=True, return_counts=True)
        order = np.argsort(first, kind="stable")
        rows = self._tables[PROCESS].rows

        def cgroup(place: int) -> int:
            row = rows[process[place]]
            assert isinstance(row, ProcessRow)
            return row.now.cgroup_id

        for place, count in _bounded(first[order].tolist(), counts[order].tolist(), cgroup):
            call = batch.own[fired[place]]
            assert isinstance(call, CallFields)
            event, program, output = WholeEvent(call), call.process.process, self._outputs[rule.name]
            yield Alert(
                rule,
                call.values.time_ns,
                output.text(event),
                output.values(event),
                count=count,
                cgroup_id=call.process.now.cgroup_id,
                program=program.path or program.name,
                incomplete=_missing(self._fields[rule.name], call),
                ancestry=call.process.process.ancestry,
                happened=self._happened(call),
            )

    def _happened(self, call: CallFields) -> tuple[Happened, ...] | None:
        if self._recent is None:
            return None
        return self._recent.before(call.process.now.cgroup_id, call.values.boot_ns, self._clock_ns)

    def _inside(self, cgroups: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Which events belong to containers."""
        if (cgroups == cgroups[0]).all():  # as in Choosing
            return np.full(len(cgroups), self._surroundings.container(int(cgroups[0])) is not None)
        distinct, which = np.unique(cgroups, return_inverse=True)
        found = [self._surroundings.container(cgroup) is not None for cgroup in distinct.tolist()]
        return np.array(found, bool)[which]

    def _process_ids(self, section: Section) -> Ids:
        def make(at: int) -> int:
            row = section.rows[at]
            process = self.processes.get(_key(row), section.comm(at))
            number = self._tables[PROCESS].add(
                ProcessRow(process, _now(row), self._surroundings), _ROW_BYTES + process.size
            )
            process.rows.add(number)
            return number

        return self._keys[PROCESS].ids(section.words(self._spans[PROCESS]), make)

    def _call_keys(self, section: Section) -> Words:
        which = self._arguments[section.rows["call"]]
        if (which < 0).all():
            return section.words(self._spans[CALL])
        args = section.rows["args"]
        argument = np.where(which == 1, args[:, 1], np.where(which == 0, args[:, 0], 0)).astype(np.uint64)
        return section.words(self._spans[CALL], argument.view(np.uint8).reshape(-1, 8))

    def _descriptor_keys(self, section: Section) -> Words:
        failed = (section.rows["result"] < 0).view(np.uint8).reshape(-1, 1)
        return section.words(self._spans[DESCRIPTOR], failed, section.bytes[:, section.text_at :])

    def _values(self, section: Section, at: int) -> Values:
        row = section.rows[at]
        path, to = row["path"], row["to"]
        raw, to_raw = (section.path(at, each["path"]) for each in (path, to))
        boot_ns = int(row["timestamp"])
        return Values(
            type=self._names[row["call"]],
            time_ns=boot_ns + self._clock_ns,
            boot_ns=boot_ns,
            result=int(row["result"]),
            fd=int(row["fd"]),
            flags=int(row["flags"]),
            mode=int(row["mode"]),
            args=row["args"].tolist(),
            tid=int(row["tid"]),
            fd_type=chr(row["fd_type"]) if row["fd_type"] else "",
            protocol=int(row["protocol"]),
            family=int(row["family"]),
            connected=bool(row["connected"]),
            name_changed=bool(row["name_changed"]),
            src=_end(row["src"]),
            dst=_end(row["dst"]),
            path=joined(section.path(at, path["directory"]), raw),
            raw=raw if path["path"]["as_given"] else "",
            to=joined(section.path(at, to["directory"]), to_raw),
            to_raw=to_raw,
            data=section.text(at, row["data"]),
        )


def parameters(rules: Ruleset, names: Sequence[str], *, host: bool = False) -> dict[str, str]:
    """Settings of the gadget, whose calls have these names: what rules need the kernel to send, and nothing else."""
    asked = _asked(rules)
    wanted = frozenset[str]().union(*(rule.types for rule in asked))
    calls = [name for name in names if name in wanted and name not in (*_STATES, ENDS)]
    fields = frozenset[str]().union(*map(_fields, asked))
    return {
        "calls": ",".join(name.replace("_", " ") for name in calls or EXECS),
        "host_calls": str(host).lower(),
        "buffers": str("evt.buffer" in fields).lower(),
        "environment": str(any(name.startswith(("proc.env", "proc.aenv")) for name in fields)).lower(),
    }


def asks(rules: Ruleset, *names: str) -> bool:
    """Whether a rule on what happens asks about one of these fields, or shows it."""
    return any(not _fields(rule).isdisjoint(names) for rule in _asked(rules))


def asks_labels(rules: Ruleset) -> bool:
    """Whether a rule on what happens asks about labels of pods, or shows them."""
    return any(name.startswith(LABEL) for rule in _asked(rules) for name in _fields(rule))


def names_of_calls(schema: Schema) -> list[str]:
    """The names of calls by their numbers, as rules have them."""
    return [name.replace(" ", "_") for name in _words(schema["call"])]


def sent(names: Iterable[str]) -> frozenset[str]:
    """The calls, among those with these names, that the rules ask about."""
    return frozenset(name for name in names if name and name not in _STATES)


def _asked(rules: Ruleset) -> list[Rule]:
    return [rule for rule in rules.rules if rule.enabled and rule.source == SYSCALL and rule.types]


def _fields(rule: Rule) -> frozenset[str]:
    """The fields that a rule asks about or shows."""
    sides = (side for check in checks(rule.condition) for side in (check.left, check.right) if side is not None)
    return frozenset(name for side in sides for name in names(side)).union(rule.output.fields)


def _whose(output: RuleOutput) -> RuleOutput:
    """An output that says which container it is about: one that does not gets what Falco adds to all."""
    if not output.fields.keys().isdisjoint(_ADDED.values()):
        return output
    return RuleOutput(" ".join([output.written, *(f"{word}=%{name}" for word, name in _ADDED.items())]), SYSCALL)


def _words(field: Field) -> list[str]:
    """The words of an enum by their numbers, which begin with 0."""
    found = {int(number): word for number, word in field.values.items()}
    return [found.get(number, "") for number in range(max(found) + 1)]


def _key(row: Any) -> Key:
    return Key(*(int(row[name]) for name in _OF_KEY))


def _now(row: Any) -> Now:
    return Now(*(int(row[name]) for name in _OF_NOW))


def _end(endpoint: Any) -> tuple[bytes, int]:
    return bytes(endpoint["address"]).ljust(16, b"\0"), int(endpoint["port"])  # numpy takes zeros for padding


def _bounded(places: list[int], counts: list[int], cgroup: Callable[[int], int]) -> Iterable[tuple[int, int]]:
    """The first events of each container. The last of them counts the events beyond."""
    if len(places) <= MOST_ALERTS:
        return zip(places, counts, strict=True)
    found: dict[int, dict[int, int]] = {}
    for place, count in zip(places, counts, strict=True):
        own = found.setdefault(cgroup(place), {})
        counted = place if len(own) < MOST_ALERTS else next(reversed(own))
        own[counted] = own.get(counted, 0) + count
    return [item for own in found.values() for item in own.items()]


def _missing(asked: Iterable[str], call: CallFields) -> tuple[str, ...]:
    """Which fields of a rule were missing.

    The process, an ancestor, or the container's image, names or labels is not known.
    """
    get = call.process.get
    container = get("container.id")
    doubtful: tuple[str, ...] = () if call.process.process.is_known else ("proc.",)
    if container == UNKNOWN:
        doubtful += ("container.", "k8s.")
    elif container != HOST:
        doubtful += ("container.image",)
        if get("k8s.pod.uid") is not None:
            doubtful += () if get("k8s.pod.name") else ("container.name", "k8s.ns.", "k8s.pod.name")
            doubtful += () if get("k8s.pod.labels") is not None else (LABEL,)
    lacks = call.process.lacks
    return tuple(sorted(name for name in asked if lacks(name) or (name.startswith(doubtful) and get(name) is None)))
