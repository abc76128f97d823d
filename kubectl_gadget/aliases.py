"""Other tools' names for our commands: `trace NAME`, `run trace_NAME:latest`, NAME-bpfcc. gadget.toml lists them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gadget import catalog
from gadget.errors import UsageError

#: Before the name of any gadget.
_RUN = "run"
#: What kubectl has, and what to do instead.
_NOT_OURS = {
    "completion": "kubectl completes our words: source <(kubectl completion bash), with kubectl_complete-gadget on PATH"
}
#: Of commands that are no gadget's.
OF_OTHERS = {
    "trace-all": "story",
    "profile_cpu": "profile",
    "profile-bpfcc": "profile",
    "profile.bt": "profile",
    "offcputime": "offcpu",
    "offcputime-bpfcc": "offcpu",
}


def meaning(words: Sequence[str], ours: Sequence[str]) -> tuple[str, str, list[str]]:
    """What words begin with, which of ours that is, and the words after it. UsageError if it is none of ours.

    words begin with none of ours.
    """
    known = OF_OTHERS | {
        alias: gadget.command for gadget in catalog.load().values() for alias in (gadget.name, *gadget.aliases)
    }
    first, second = words[0], words[1] if len(words) > 1 and words[1][:1] != "-" else ""
    if first == _RUN:
        if not second:
            raise UsageError(f"{_RUN} takes the name of a gadget, which stands alone here: there is {', '.join(ours)}")
        image = _bare(second)
        return f"{_RUN} {second}", _find(image, known, ours), [*words[2:]]
    if members := {alias: name for alias, name in known.items() if alias.startswith(f"{first} ")}:
        if not second:
            told = ", ".join(f"{alias} is {name}" for alias, name in members.items())
            raise UsageError(f"{first} takes the name of a gadget; here {told}")
        both = f"{first} {second}"
        return both, second if second in ours else _find(both, known, ours), [*words[2:]]
    return first, _find(_bare(first), known, ours), [*words[1:]]


def _bare(image: str) -> str:
    """The name of an image without its registry, version and digest."""
    return image.rpartition("/")[2].partition("@")[0].partition(":")[0] or image


def _find(word: str, known: Mapping[str, str], ours: Sequence[str]) -> str:
    """The command that a word means. UsageError with the nearest name, or with where all names are listed."""
    if word in known or word in ours:
        return known.get(word, word)
    import difflib  # 8 ms that only a mistake pays for

    near = difflib.get_close_matches(word, [*ours, *known], 1)
    hint = f"did you mean {known.get(near[0], near[0])}?" if near else "the help lists what there is"
    raise UsageError(f"unknown command {word!r}: {_NOT_OURS.get(word, hint)}")
