"""What https://www.speedscope.app reads: a file of JSON, with a profile for each container."""

from __future__ import annotations

from typing import Any

import orjson

from gadget.text import escape
from kubectl_gadget.profile.stacks import Function, ProfileForm, Samples

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def make(samples: Samples) -> bytes:
    """The file. Its values are seconds: of CPU time a sample stands for the time to the next one."""
    frames: list[dict[str, Any]] = []
    numbers: dict[tuple[str, str], int] = {}

    def number(name: str, file: str = "") -> int:
        if (name, file) not in numbers:
            numbers[name, file] = len(frames)
            frames.append({"name": name, **({"file": file} if file else {})})
        return numbers[name, file]

    def numbers_of(comm: str, calls: tuple[Function, ...]) -> list[int]:
        return [number(escape(comm)), *(number(call.text, escape(call.module)) for call in calls)]

    places: dict[str, tuple[list[list[int]], list[float]]] = {}
    for (who, calls), count in samples.counts.items():
        *above, place, comm = samples.outer(who)
        stacks, weights = places.setdefault(" ".join([*above, place]), ([], []))
        stacks.append(numbers_of(comm, calls))
        weights.append(count / samples.a_second)
    profiles = [
        {
            "type": "sampled",
            "name": place,
            "unit": "seconds",
            "startValue": 0,
            "endValue": sum(weights),
            "samples": stacks,
            "weights": weights,
        }
        for place, (stacks, weights) in sorted(places.items(), key=lambda item: -sum(item[1][1]))
    ]
    made = {
        "$schema": _SCHEMA,
        "exporter": "kubectl-gadget",
        "name": "kubectl gadget offcpu" if samples.waits else "kubectl gadget profile",
        "activeProfileIndex": 0,
        "shared": {"frames": frames},
        "profiles": profiles,
    }
    return orjson.dumps(made)


FORM = ProfileForm("speedscope", "a file for speedscope.app", make)
