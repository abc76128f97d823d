"""The base of all kinds: a kind is a plain number unless it overrides something."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Rows = npt.NDArray[Any]
    Mask = npt.NDArray[np.bool_] | None


#: What a column shows where there is no value, and where the value is not known.
NONE, UNKNOWN = "-", "?"
#: Of the process that an event is of, in the header of gadget.h. Every event is of one: what is empty is not known.
OF_PROCESS = ("pid", "tid", "uid", "gid", "comm")


def nothing(column: Described) -> str:
    """What a column shows in place of a missing value."""
    return UNKNOWN if column.name in OF_PROCESS else NONE


class Compared(Enum):
    """What a filter looks at: a whole column of numbers, each distinct text, or each distinct value."""

    NUMBERS = auto()
    TEXTS = auto()
    VALUES = auto()


class Cut(Enum):
    """Where to cut a value that does not fit, so that the rest still says something."""

    MIDDLE = auto()
    END = auto()
    HOST = auto()


class Encoding(Enum):
    """What makes a column fast to encode as JSON."""

    PLAIN = auto()  # values are numbers in JSON as they are
    CONVERTED = auto()  # numbers, once they are converted
    DISTINCT = auto()  # there are few of them
    STRINGS = auto()
    TIMES = auto()
    ANY = auto()  # as they are
    LISTS = auto()  # each once it is converted


class Total(Enum):
    """How totals combine the values of a table."""

    LATEST = auto()
    SUM = auto()
    GREATEST = auto()


class Described(Protocol):
    """A column whose values are of a kind."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def values(self) -> Mapping[str, str]:
        """The names of its numbers."""


class ParameterRoom(Described, Protocol):
    """The room that a parameter's value has: size in bytes."""

    @property
    def size(self) -> int:
        """Its size."""

    @property
    def signed(self) -> bool:
        """Whether it may be negative."""


class Wanted(Protocol):
    """The value that a filter compares with."""

    @property
    def text(self) -> str:
        """What was written."""

    @property
    def has_pattern(self) -> bool:
        """Whether a * in it stands for anything."""

    def same(self, text: str) -> bool:
        """Whether a text equals it, or fits its pattern."""


class Source(Protocol):
    """Rows, to decode columns from. mask chooses rows; None chooses all."""

    clock: int

    def slices(self, where: Rows, mask: Mask) -> list[bytes]:
        """The text that each of where's slices names, in the rows of mask."""

    def truncated(self, name: str, mask: Mask) -> Sequence[int]:
        """Which rows of mask have a field that was cut."""

    def endpoints(self, name: str, ends: Rows, mask: Mask) -> list[Any]:
        """The ends that a field has in the rows of mask."""

    def containers(self, cgroups: Rows) -> list[Any]:
        """Namespace, pod, container and id of each cgroup; all empty outside containers."""


class Kind:
    """A plain number. The other kinds override what is different for them."""

    def __init__(self, name: str) -> None:
        """A kind of that name: gadget_NAME in fields.h."""
        self.name = name

    is_list = False

    @property
    def each(self) -> Kind:
        """The kind of one item, if this is a list; else this kind."""
        return self

    # Its layout in a record

    #: gadget_ANYTHING_NAME is of this kind too
    is_family = False
    #: its parts in C, each with its kind; a kind without parts is read as a whole
    parts: Mapping[str, str] = {}
    #: the sizes in bytes of parts that have a fixed size
    part_sizes: Mapping[str, int] = {}
    #: its size in bytes, if that is fixed
    size = 0
    #: the greatest byte that it may be, if there is a limit
    greatest: int | None = None
    #: how values arrive, if not as numbers: values of two kinds with the same shape are shown alike
    shape = ""
    #: whether a field of an event can be of this kind; others are for parts of fields, and for tables of other things
    in_events = True
    #: whether an agent with --redact masks the slice of the tail that it is
    is_masked = False

    def fits(self, size: int) -> bool:
        """Whether a value can have this size in bytes."""
        return size in (1, 2, 4, 8)

    def format(self, size: int, *, signed: bool) -> str:
        """Its format for numpy."""
        return f"<{'i' if signed else 'u'}{size}"

    def word_list(self, words: Mapping[int, str]) -> Mapping[int, str]:
        """The names of its numbers, from the names that its type has in C."""
        return words

    # Its values

    #: the parts of a value that filters and columns can name, each with its kind and meaning
    members: Mapping[str, tuple[str, str]] = {}
    #: whether a batch has few distinct values, which are cheaply told apart as bytes of a record
    repeats = False
    #: whether it has so few values that events may be counted by it for long, and each lies in a record in one piece
    is_few = False
    #: for Prometheus, how values are measured: the unit that a metric's name ends with, and what one of ours is of it
    measure: tuple[str, float] | None = None

    def decode(self, source: Source, name: str, rows: Rows, mask: Mask) -> list[Any]:
        """The values of a column: rows are those that mask has chosen."""
        values: list[Any] = self.raw(source, rows).tolist()
        return values

    def raw(self, source: Source, rows: Rows) -> Rows:
        """Values from the numbers in a record."""
        return rows

    def member(self, source: Source, name: str, rows: Rows, mask: Mask, which: str) -> list[Any]:
        """One of the members of each value."""
        raise NotImplementedError

    def numbers_of(self, rows: Rows, which: str) -> Rows:
        """A member of each value that is a number."""
        found: Rows = rows[which]
        return found

    #: whether a value can be the key of a table as it is
    is_key = True

    def key(self, value: Any) -> Any:
        """A value as the key of a table."""
        return value

    #: what its total is, where it is a value of a table
    total = Total.LATEST

    # In a column

    #: where a value that does not fit is cut; None if it must not be cut, such as a number
    cut: Cut | None = None
    #: whether it says most of a row
    is_main = False
    #: whether its digits are to stand below each other
    is_right = False
    #: cells that a column begins with, so that the table does not move when the first longer value comes, and to how
    #: many of them it may come down
    usual, tight = 0, 0
    #: how many cells of a value count where columns are left out for want of room: a long name must not push out others
    considered = 20
    #: to how many cells what is longer may be cut, so that it still says something
    least = 12
    #: cells that it gets where there is room
    room = 0
    #: how late it is left out where there is no room at all
    late: int | None = None
    #: what a column shows for None
    missing = NONE
    #: whether any value but 0 is a failure
    is_failure = False

    def longest(self, column: Described) -> int | None:
        """How many cells the longest value needs; None if that is not known before."""
        return None

    def text(self, column: Described) -> Callable[[Any], str]:
        """How values look; never with a control character."""
        return str

    # As JSON

    encoding = Encoding.CONVERTED

    def json(self, column: Described) -> dict[str, Callable[[Any], Any]]:
        """The keys that a column becomes, and how each gets its value."""
        return {column.name: same}

    def flat(self, column: Described) -> dict[str, Callable[[Any], Any]]:
        """The same for forms whose values must not have parts."""
        return self.json(column)

    # In filters, completion and help

    compared = Compared.NUMBERS
    #: whether values are text as they are
    is_text = False
    #: the number that stands for an unknown value
    unknown: int | None = None
    #: how help begins the list of its words
    words_are = "one of"

    def plain(self, value: Any) -> str:
        """A value as a filter of texts sees it."""
        return str(value)

    def matcher(self, column: Described, wanted: Wanted) -> Callable[[Any], bool]:
        """Whether a value is what is wanted."""
        return wanted.same

    def name_of(self, column: Described) -> Callable[[int], str] | None:
        """The name of a number, as JSON has it, or empty if it has none. None if numbers of this kind have no names."""
        return None

    def numbers(self, column: Described) -> Mapping[str, int]:
        """Numbers by the names that a filter takes for them."""
        return {name: int(value) for value, name in column.values.items()}

    def parse(self, column: Described, text: str) -> int:
        """The number that a name or digits stand for. ValueError or OverflowError if the text is neither."""
        names = self.numbers(column)
        return names[text] if text in names else self.digits(text)

    def several(self, text: str) -> Sequence[str]:
        """The parts of a text. Each is a number, and their bits together are the value."""
        return [text]

    def digits(self, text: str) -> int:
        """The number that digits stand for. ValueError or OverflowError if the text is no number."""
        return int(text, 0)

    def wanted(self, column: Described) -> str:
        """What parse takes."""
        names = list(self.numbers(column))
        return ", ".join([*names[:12], *["…"] * (len(names) > 12), "a number"])

    def words(self, column: Described) -> Sequence[str]:
        """What completes a value."""
        return list(column.values.values())

    def explained(self, column: Described) -> Sequence[str]:
        """The words that help lists."""
        return ()

    # As a parameter

    is_switch = False

    @property
    def metavar(self) -> str:
        """What help calls it."""
        return self.name

    def pack(self, text: str, to: ParameterRoom) -> bytes:
        """A value as bytes. ValueError says why that is not possible."""
        try:
            return self._setting(text).to_bytes(to.size, "little", signed=to.signed)
        except (KeyError, ValueError, OverflowError):
            raise ValueError(f"not a {self.name}") from None

    def _setting(self, text: str) -> int:
        return self.digits(text)


def same(value: Any) -> Any:
    """The value."""
    return value
