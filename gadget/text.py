"""Makes text safe for a terminal, and guesses the words behind misspelt ones."""

from __future__ import annotations

from collections.abc import Iterable


def _escape_character(character: str) -> str:
    if character.isprintable():
        return character
    named = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"}
    code = ord(character)
    return named.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def escape(text: str) -> str:
    """Text with control characters, ANSI escapes and direction marks made visible: processes choose their names."""
    return text if text.isprintable() else "".join(map(_escape_character, text))


_NEED_QUOTES = frozenset(" \t\n\"'\\$`")


def quote(argument: str) -> str:
    """An argument as a shell user would write it."""
    if argument and _NEED_QUOTES.isdisjoint(argument):
        return escape(argument)
    return '"' + escape(argument).replace('"', '\\"') + '"'


def counted(number: int, what: str, grouping: str = "") -> str:
    """A number of things, such as `3 rows`. grouping is what stands between thousands."""
    return f"{number:{grouping}} {what}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m{rest:02d}s" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest} s"


def meant(word: str, known: Iterable[str]) -> str:
    """A question with the words that are like a misspelt one; empty if none is."""
    from difflib import get_close_matches  # for those alone who misspell

    small = {each.lower(): each for each in known}
    own = word.lower()
    parts = [each for low, each in small.items() if own in (low.rpartition(".")[2], low.rpartition("_")[2])]
    near = parts or [small[each] for each in get_close_matches(own, small, 1)]
    near += [each for low, each in small.items() if not near and len(own) > 2 and low.endswith(own)]
    return f"did you mean {' or '.join(near[:3])}?" if near else ""


def asked(text: str, name: str, others: Iterable[str]) -> str:
    """A text, and what was meant by a name, as a question."""
    question = meant(name, others)
    return f"{text}: {question}" if question else text


def host_and_port(address: str) -> tuple[str, int] | None:
    """The parts of HOST:PORT, an IPv6 address without its brackets; None if it is none."""
    host, _, port = address.rpartition(":")
    return (host.strip("[]"), int(port)) if host and "/" not in address and port.isdecimal() else None
