"""Settings: dataclasses whose fields say what they mean, made once when the agent starts.

A setting is taken from the command line, else from a variable of the environment, else from the file of --config, else
it is the default. `[traceloop] memory = 256` in the file, GADGET_TRACELOOP_MEMORY and --traceloop-memory are the same,
and so is --set traceloop.memory=256.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from agent.files import read_regular
from gadget.errors import UsageError
from gadget.kinds.texts import decode_text

#: A larger file is not one of settings.
MOST_BYTES = 256 << 10
#: No number is greater: of bytes in MiB, seconds and entries each is far more than there can be.
MOST = 10**9
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
S = TypeVar("S")


@dataclass(frozen=True)
class Setting:
    """What is known of a field. option: its name if it is not made of section and field; empty if it is no option."""

    doc: str
    unit: str = ""
    option: str | None = None
    least: float | None = None
    #: what texts stand for, if not for themselves: of a list, each of them
    read: Callable[[str], Any] | None = None
    choices: Sequence[str] = ()
    metavar: str | None = None
    #: a default in words, or as it would be written
    shown: str = ""
    #: another variable of the environment, which others set
    variable: str = ""
    hidden: bool = False


def setting(default: Any, doc: str, **known: Any) -> Any:
    """A field of a class of settings; known are those of Setting."""
    metadata = {"setting": Setting(doc, **known)}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class NamedSetting:
    """A setting with its names: field and kind of the class's, key in the file, variable, option."""

    section: str
    field: str
    kind: type
    about: Setting

    @property
    def key(self) -> str:
        """The name in the file."""
        return self.field.replace("_", "-")

    @property
    def variable(self) -> str:
        """The name in the environment."""
        return f"GADGET_{self.section}_{self.field}".upper()

    @property
    def option(self) -> str:
        """The name on the command line; empty if it is no option."""
        return f"--{self.section}-{self.key}" if self.about.option is None else self.about.option

    @property
    def parameter(self) -> str:
        """The name in what click parsed."""
        return f"{self.section}_{self.field}"

    @property
    def is_list(self) -> bool:
        """Whether it may be given several times."""
        return self.kind is tuple


def settings_of(section: str, kind: type) -> list[NamedSetting]:
    """The settings of a class, whose section in the file is named so. Each is of the kind of its default."""
    defaults = kind()
    found = []
    for field in dataclasses.fields(kind):
        default = getattr(defaults, field.name)
        of = next((each for each in (bool, int, float, tuple, Path) if isinstance(default, each)), str)
        found.append(NamedSetting(section, field.name, of, field.metadata["setting"]))
    return found


def options(section: str, kind: type) -> list[click.Parameter]:
    """The options of a class of settings."""
    defaults = kind()
    return [_option(each, getattr(defaults, each.field)) for each in settings_of(section, kind) if each.option]


def _option(named: NamedSetting, default: Any) -> click.Option:
    about = named.about
    shown = about.shown or str(default if default not in ("", ()) else "")
    if named.kind is bool and not about.shown:
        shown = "on" if default else ""
    words = f"{about.doc} [default: {shown}]" if shown else about.doc
    if named.kind is bool:
        with_no = f"/--no-{named.option[2:]}" if about.shown or default else ""
        return click.Option(
            [named.option + with_no, named.parameter], is_flag=True, default=False, hidden=about.hidden, help=words
        )
    of: Any
    if named.kind in (int, float):
        of = click.IntRange(int(about.least or 0)) if named.kind is int else click.FloatRange(about.least)
    else:
        of = click.Choice(about.choices) if about.choices else str
    return click.Option(
        [named.option, named.parameter],
        type=of,
        multiple=named.is_list,
        metavar=about.metavar,
        hidden=about.hidden,
        help=words,
    )


#: A value, and where it is from.
Given = tuple[Any, str]


def given(context: click.Context, section: str, kind: type, sets: Sequence[str] = ()) -> dict[str, Given]:
    """What the command line says of the settings of a class, by field: its options, else sets, as SECTION.KEY=VALUE."""
    found: dict[str, Given] = {}
    for each in settings_of(section, kind):
        prefix = f"{section}.{each.key}="
        for text in sets:
            if text.startswith(prefix):
                where = f"--set {section}.{each.key}"
                value = _from_text(each, text.removeprefix(prefix), where)
                found[each.field] = (_of(found, each) + value if each.is_list else value), where
        if context.get_parameter_source(each.parameter) == ParameterSource.COMMANDLINE:
            value = context.params[each.parameter]
            found[each.field] = (_of(found, each) + list(value) if each.is_list else value), each.option
    return found


def _of(found: Mapping[str, Given], named: NamedSetting) -> list[str]:
    """What was said of a list so far: it may be given several times, and each time adds to it."""
    return list(found[named.field][0]) if named.field in found else []


def check_sets(sets: Sequence[str], sections: Mapping[str, type]) -> None:
    """UsageError if a text of --set names no setting."""
    for text in sets:
        name, equals, _ = text.partition("=")
        section, _, key = name.partition(".")
        if not equals or not key:
            raise UsageError(f"--set {text}: want SECTION.KEY=VALUE")
        _check_names("--set", section, [key], sections)


def _check_names(where: str, section: str, keys: Iterable[str], sections: Mapping[str, type]) -> None:
    if section not in sections:
        raise UsageError(f"{where}: no section [{section}]: there are {', '.join(sorted(sections))}")
    known = [each.key for each in settings_of(section, sections[section])]
    for key in keys:
        if key not in known:
            raise UsageError(f"{where}: [{section}] has no {key}: there are {', '.join(known) or 'none'}")


def read_file(path: Path, sections: Mapping[str, type]) -> dict[str, dict[str, Any]]:
    """The tables of a file of settings. UsageError if it is none, or names what is not there."""
    try:
        found = tomllib.loads(decode_text(read_regular(path, MOST_BYTES, follow=True)))
    except OSError as error:
        raise UsageError(f"--config: {path}: {error.strerror or error}") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"--config: {path}: {error}") from None
    for section, table in found.items():
        if not isinstance(table, dict):
            raise UsageError(f"{path}: {section} is not a section")
        _check_names(str(path), section, table, sections)
    return found


def make(
    section: str,
    kind: type[S],
    said: Mapping[str, Given],
    environment: Mapping[str, str],
    table: Mapping[str, Any],
    path: Path | None = None,
) -> S:
    """The settings of a class, from each place that may say something. UsageError if a value is none."""
    values = {}
    for each in settings_of(section, kind):
        variable = next((name for name in (each.variable, each.about.variable) if environment.get(name)), "")
        if each.field in said:
            values[each.field] = _checked(each, *said[each.field])
        elif variable:
            values[each.field] = _checked(each, _from_text(each, environment[variable], variable), variable)
        elif each.key in table:
            values[each.field] = _checked(each, table[each.key], f"{path}: [{section}] {each.key}")
    return kind(**values)


def _from_text(named: NamedSetting, text: str, where: str) -> Any:
    """What a variable's text is: of a list, an entry a line."""
    if named.is_list:
        return [line for line in text.splitlines() if line]
    if named.kind is bool:
        if text.lower() not in _YES + _NO:
            raise UsageError(f"{where}: {text!r} is neither true nor false")
        return text.lower() in _YES
    if named.kind in (int, float):
        try:
            return named.kind(text)
        except ValueError:
            raise UsageError(f"{where}: {text!r} is no number") from None
    return text


def _checked(named: NamedSetting, value: Any, where: str) -> Any:
    """The value of the field. UsageError, which begins with where it is from, if it cannot be."""
    about, read = named.about, named.about.read
    wanted = {bool: "true or false", int: "a whole number", float: "a number", tuple: "a list of texts"}
    is_one = {
        bool: isinstance(value, bool),
        int: type(value) is int,
        float: type(value) in (int, float) and math.isfinite(value),
        tuple: isinstance(value, list | tuple) and all(isinstance(each, str) for each in value),
    }.get(named.kind, isinstance(value, str))
    if not is_one:
        raise UsageError(f"{where}: {value!r} is not {wanted.get(named.kind, 'a text')}")
    if about.least is not None and value < about.least:
        raise UsageError(
            f"{where}: {value} is too little: at least {about.least:g}{f' {about.unit}' * bool(about.unit)}"
        )
    if named.kind in (int, float) and value > MOST:
        raise UsageError(f"{where}: {value} is too much")
    if about.choices and value not in about.choices:
        raise UsageError(f"{where}: {value!r} is none of {', '.join(about.choices)}")
    try:
        if named.is_list:
            return tuple(map(read, value)) if read else tuple(value)
        return read(value) if read else named.kind(value)
    except UsageError as error:
        raise UsageError(str(error) if where.startswith("--") else f"{where}: {error}") from None
