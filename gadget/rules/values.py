"""What a rule's values mean for a field of some type, and the tests that operators are."""

from __future__ import annotations

import base64
import binascii
import re
import socket
import string
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any
from weakref import WeakValueDictionary

import re2  # type: ignore[import-untyped]  # google-re2

from gadget.rules.fields import NUMBERS, TEXTS
from gadget.rules.parser import EQUALS, ORDERS

#: Characters of a pattern: as many as a path may have.
MOST_PATTERN = 4096
#: Bytes that a pattern takes at most with what RE2 remembers of texts, and those of all rules together.
MOST_BYTES, SHARED = 1 << 20, 32 << 20
_TOO_LONG = f"a pattern has {MOST_PATTERN} characters at most"
_GLOB = re.compile(r"[?*\[]")
_SETS = ("in", "intersects", "exists")
_ON_TEXT = frozenset(
    (*EQUALS, *ORDERS, *_SETS, "contains", "icontains", "startswith", "endswith", "glob", "iglob", "pmatch", "regex")
)
_ON_BYTES = frozenset((*EQUALS, *_SETS, "contains", "startswith", "endswith", "bcontains", "bstartswith"))
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_UPPER = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)
_LIST_TYPES = frozenset(("CHARBUF", "UINT64", "RELTIME", "ABSTIME", "BOOL", "IPADDR", "IPNET"))


def allows(kind: str, operator: str, *, is_list: bool) -> bool:
    """Whether an operator makes sense for a type (flt_is_comparable of filter_compare.cpp)."""
    if operator == "exists":
        return True
    if is_list:
        return kind in _LIST_TYPES and operator in _SETS
    if kind in TEXTS:
        return operator in _ON_TEXT
    if kind == "BYTEBUF":
        return operator in _ON_BYTES
    numeric = kind in NUMBERS or kind == "PORT"
    return operator in (*EQUALS, *_SETS) or (numeric and operator in ORDERS)


def value(text: str, kind: str, operator: str) -> Any:
    """A value as a rule writes it, as events have it: numbers, addresses as 4 or 16 bytes, networks as their tests.

    Raises:
        ValueError: The type has no such value.

    """
    if "\0" in text:
        raise ValueError("a value has no NUL byte")
    if operator in ("glob", "iglob") and len(text) > MOST_PATTERN:
        raise ValueError(_TOO_LONG)
    if kind in TEXTS:
        return text
    if kind == "BYTEBUF":
        return _bytes(text, hexadecimal=operator.startswith("b"))
    if kind == "BOOL":
        if text not in ("true", "false"):
            raise ValueError(f"{text!r} is neither true nor false")
        return text == "true"
    if kind == "IPADDR":
        return _address(text)
    if kind == "IPNET":
        return network(text)
    if kind == "PORT":
        return _port(text)
    return _number(text, NUMBERS[kind])


def _bytes(text: str, *, hexadecimal: bool) -> bytes:
    if not hexadecimal:
        return text.encode("utf-8", "surrogateescape")
    try:
        return bytes.fromhex(text) if text.isalnum() else bytes.fromhex("!")
    except ValueError:
        raise ValueError(f"{text!r} is no hexadecimal text, as 474554") from None


def _number(text: str, bits: int) -> int:
    if not re.fullmatch(r"\s*[+-]?[0-9]{1,20}", text):
        raise ValueError(f"{text!r} is no decimal number")
    number, low, high = int(text), *((-(1 << -bits - 1), 1 << -bits - 1) if bits < 0 else (0, 1 << bits))
    if not low <= number < high:
        raise ValueError(f"{text} is no number from {low} to {high - 1}")
    return number


def _port(text: str) -> int:
    if text.isascii() and text.isdecimal():
        return _number(text, 16)
    try:
        return socket.getservbyname(text)
    except OSError:
        raise ValueError(f"{text!r} is neither a port nor the name of one") from None


def _address(text: str) -> bytes:
    try:
        if "%" in text:
            raise ValueError("a zone")
        return ip_address(text).packed
    except ValueError:
        raise ValueError(f"{text!r} is no IP address") from None


def network(text: str) -> Callable[[bytes], bool]:
    """Whether an address, as bytes, is in a network.

    Raises:
        ValueError: It is none.

    """
    address, _, mask = text.partition("/")
    try:
        if not re.fullmatch("[0-9]{1,3}", mask):
            raise ValueError("no mask")
        parsed = ip_network(f"{address}/{int(mask)}", strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is no network, as 10.0.0.0/8") from None
    size, shift = len(parsed.network_address.packed), parsed.max_prefixlen - parsed.prefixlen
    prefix = int(parsed.network_address) >> shift
    return lambda at: len(at) == size and int.from_bytes(at, "big") >> shift == prefix


class Pattern:
    """Whether a pattern takes a whole text, in time that grows with the text alone (RE2)."""

    __slots__ = ("__weakref__", "_compiled")

    def __init__(self, pattern: str, most_bytes: int, **options: bool) -> None:
        """Compile; it takes most_bytes at most, with what it remembers of texts. re2.error if it cannot be."""
        chosen = re2.Options()
        chosen.max_mem, chosen.log_errors = most_bytes, False
        for name, value in options.items():
            setattr(chosen, name, value)
        self._compiled = re2.compile(_utf8(pattern), options=chosen)
        re2.purge()  # it would keep the last 128 for good

    def __call__(self, text: str) -> bool:
        """Whether it takes the text."""
        return self._compiled.fullmatch(_utf8(text)) is not None


#: Those that rules have, so that equal ones are one, with one memory.
_known: WeakValueDictionary[tuple[str, str, int], Pattern] = WeakValueDictionary()


def _pattern(operator: str, text: str, most_bytes: int, make: Callable[[], Pattern]) -> Pattern:
    key = (operator, text, most_bytes)
    if (found := _known.get(key)) is None:
        try:
            found = _known[key] = make()
        except re2.error as error:
            said = _said(error)
            if "too large" in said:
                said = (
                    f"too large: {SHARED >> 20} MiB are for the patterns of all rules, {most_bytes >> 10} KiB for each"
                )
            what = "regular expression" if operator == "regex" else "pattern"
            raise ValueError(f"{text!r} is no {what}: {said}") from None
    return found


def regex(pattern: str, most_bytes: int = MOST_BYTES) -> Pattern:
    """A regular expression of POSIX.

    Raises:
        ValueError: It is none, or takes too much.

    """
    if len(pattern) > MOST_PATTERN:
        raise ValueError(_TOO_LONG)
    return _pattern(
        "regex", pattern, most_bytes, lambda: Pattern(pattern, most_bytes, posix_syntax=True, longest_match=True)
    )


def glob(pattern: str, most_bytes: int = MOST_BYTES, *, fold: bool = False) -> Pattern:
    """A shell's pattern; a * goes over slashes (fnmatch(3) without flags).

    Raises:
        ValueError: It takes too much.

    """

    def make() -> Pattern:
        return Pattern("".join(_glob_parts(_utf8(pattern).decode())), most_bytes, case_sensitive=not fold, dot_nl=True)

    return _pattern("iglob" if fold else "glob", pattern, most_bytes, make)


@lru_cache(32)
def glob_of_event(pattern: str, *, fold: bool = False) -> Callable[[str], bool]:
    """The same of a pattern that an event has: those seen last are kept. One that would take too much takes no text."""
    try:
        return glob(pattern, fold=fold)
    except ValueError:
        return lambda text: False


def patterns(operator: str, text: str) -> Iterator[str]:
    """The patterns in a value behind an operator."""
    if operator in ("regex", "glob", "iglob"):
        yield text
    elif operator == "pmatch":
        yield from (part for part in text.split("/") if _GLOB.search(part))


def bytes_of_each(number: int) -> int:
    """What each of so many patterns may take: a power of two, so that sets of nearly as many share them."""
    return min(MOST_BYTES, 1 << (SHARED // max(number, 1)).bit_length() - 1)


def _utf8(text: str) -> bytes:
    """UTF-8, with U+FFFD in place of bytes that are not."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").encode()


def _said(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)


def _glob_parts(pattern: str) -> Sequence[str]:
    parts: list[str] = []
    for found in re.finditer(r"\*+|\?|\[([!^]?)(\]?(?:\[:\w+:\]|[^\]])*)\]|\\(.)|(.)", pattern, re.DOTALL):
        if found[0][0] == "*":
            parts.append(".*")
        elif found[0] == "?":
            parts.append(".")
        elif found[2] is not None:
            inner = re.sub(r"\\(.)|([\\\[\]^&|~])(?!:)", lambda each: f"\\{each[1] or each[2]}", found[2])
            parts.append(f"[{'^' if found[1] else ''}{inner}]" if _compiles(f"[{inner}]") else re.escape(found[0]))
        else:
            parts.append(re.escape(found[3] or found[4]))
    return parts


def _compiles(pattern: str) -> bool:
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options=options)
    except re2.error:
        return False
    return True


def prefixes(paths: Sequence[str], most_bytes: int = MOST_BYTES) -> Callable[[str], bool]:
    """Whether a path is one of several, or below it; each part of one may be a shell's pattern (prefix_search.h).

    Raises:
        ValueError: A pattern takes too much.

    """

    def part_of(text: str) -> str | Pattern:
        return glob(text, most_bytes) if _GLOB.search(text) else text

    wanted = [[part_of(part) for part in path.split("/") if part] for path in paths]
    plain = {tuple(parts) for parts in wanted if all(isinstance(part, str) for part in parts)}
    others = [parts for parts in wanted if tuple(parts) not in plain]
    longest = max(map(len, plain), default=-1)

    def under(path: str) -> bool:
        parts = tuple(part for part in path.split("/") if part)
        if any(parts[:count] in plain for count in range(min(len(parts), longest) + 1)):
            return True
        return any(
            len(parts) >= len(pattern)
            and all(
                part == own if isinstance(part, str) else part(own) for part, own in zip(pattern, parts, strict=False)
            )
            for pattern in others
        )

    return under


def lower(text: str) -> str:
    """A text with the capitals of ASCII made small, as tolower(3) does in the C locale."""
    return text.lower() if text.isascii() else text.translate(_LOWER)  # 10 times as fast


def upper(text: str) -> str:
    """A text with the small letters of ASCII made capitals."""
    return text.translate(_UPPER)


def decoded(text: Any) -> Any:
    """The decoded base64 text, padded or not; nothing if it is no base64."""
    raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    raw = raw.rstrip(b"=")
    try:
        found = base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    return found.decode("utf-8", "surrogateescape") if isinstance(text, str) else found


def basename(path: str) -> str:
    """The part behind the last slash."""
    return path.rpartition("/")[2]


def length(what: Any) -> int:
    """The number of bytes of a text, or of values of a list."""
    return len(what.encode("utf-8", "surrogateescape")) if isinstance(what, str) else len(what)


def options_of(arguments: Sequence[str], options: str, wanted: str | None) -> Any:
    """The options of a command line by the rules of getopt(3), or the value of the one that is wanted.

    Long options are passed over, the first argument that is none ends them. An option that nobody knows is `?`, one
    whose value is missing too, or `:` if options begins with a colon.
    """
    missing = ":" if options.startswith(":") else "?"
    known = {found[1]: bool(found[2]) for found in re.finditer(r"([^:])(:?)", options, re.DOTALL)}
    results: list[str] = []
    chosen: str | None = None
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--" or len(argument) < 2 or argument[0] != "-":
            break
        if argument.startswith("--"):
            continue
        at = 1
        while at < len(argument):
            option, at = argument[at], at + 1
            if not known.get(option):
                results.append(option if option in known else "?")
                chosen = option if option == wanted and option in known else chosen
                continue
            given = argument[at:] or (rest.pop(0) if rest else None)
            at = len(argument)
            results += [missing] if given is None else [option, given]
            chosen = given if option == wanted and given is not None else chosen
    return chosen if wanted else tuple(results) or None
