"""What `go tool pprof` reads: profile.proto, packed by gzip. Names are whole there, as processes chose them."""

from __future__ import annotations

import gzip

from gadget._generated import pprof_pb2 as pb
from kubectl_gadget.profile.stacks import NANOSECONDS, Function, ProfileForm, Samples, StackOwner

#: What a sample is labelled with, so that `pprof -tagfocus` chooses by it.
_LABELS = ("node", "namespace", "pod", "container", "comm")


class _Made:
    """A profile as it grows."""

    def __init__(self, samples: Samples) -> None:
        self.profile = pb.Profile(time_nanos=samples.began_ns, duration_nanos=int(samples.seconds * 1e9))
        self._texts: dict[str, int] = {}
        self._mappings: dict[str, int] = {}
        self._locations: dict[Function, int] = {}
        self._text("")
        self._waits = samples.waits
        if self._waits:  # as Go's own profiles of what blocks
            self.profile.sample_type.add(type=self._text("delay"), unit=self._text("nanoseconds"))
            return
        self.profile.sample_type.add(type=self._text("samples"), unit=self._text("count"))
        self.profile.sample_type.add(type=self._text("cpu"), unit=self._text("nanoseconds"))
        self.profile.period_type.type, self.profile.period_type.unit = self._text("cpu"), self._text("nanoseconds")
        self.profile.period = NANOSECONDS // samples.hz

    def add(self, who: StackOwner, calls: tuple[Function, ...], count: int) -> None:
        places = [self._location(call) for call in reversed(calls)]
        value = [count] if self._waits else [count, count * self.profile.period]
        sample = self.profile.sample.add(location_id=places, value=value)
        for name in _LABELS:
            if value := getattr(who, name):
                sample.label.add(key=self._text(name), str=self._text(value))
        sample.label.add(key=self._text("pid"), num=who.pid)

    def _text(self, text: str) -> int:
        if text not in self._texts:
            self._texts[text] = len(self._texts)
            self.profile.string_table.append(text)
        return self._texts[text]

    def _mapping(self, module: str) -> int:
        if module not in self._mappings:
            self._mappings[module] = len(self._mappings) + 1
            # where it lies in memory differs from process to process, and names are there already
            self.profile.mapping.add(id=self._mappings[module], filename=self._text(module), has_functions=True)
        return self._mappings[module]

    def _location(self, call: Function) -> int:
        if call not in self._locations:
            number = self._locations[call] = len(self._locations) + 1
            name = self._text(call.name or call.text)
            self.profile.function.add(id=number, name=name, system_name=name, filename=self._text(call.module))
            location = self.profile.location.add(id=number, mapping_id=self._mapping(call.module), address=call.address)
            location.line.add(function_id=number)
        return self._locations[call]


def make(samples: Samples) -> bytes:
    """The file."""
    made = _Made(samples)
    for (who, calls), count in samples.counts.items():
        made.add(who, calls, count)
    return gzip.compress(made.profile.SerializeToString(), mtime=0)


FORM = ProfileForm("pprof", "a file for `go tool pprof`", make)
