"""What is wrong with rules, and where: the codes are Falco's (falco_load_result.h)."""

from __future__ import annotations

from dataclasses import dataclass

from gadget.errors import UsageError

YAML_PARSE, YAML_VALIDATE, VALIDATE = "LOAD_ERR_YAML_PARSE", "LOAD_ERR_YAML_VALIDATE", "LOAD_ERR_VALIDATE"
COMPILE_CONDITION, COMPILE_OUTPUT = "LOAD_ERR_COMPILE_CONDITION", "LOAD_ERR_COMPILE_OUTPUT"


@dataclass(frozen=True, order=True)
class Position:
    """A place in a file: line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Problem:
    """An error or a warning of a rule file."""

    code: str
    text: str
    position: Position

    def __str__(self) -> str:
        return f"{self.position}: {self.text} ({self.code})"


class RulesError(UsageError):
    """Rules that cannot be loaded: nothing of them is."""

    def __init__(self, code: str, text: str, position: Position, *, is_of_others: bool = False) -> None:
        """is_of_others: it names what other rules may have."""
        self.problem, self.is_of_others = Problem(code, text, position), is_of_others
        super().__init__(str(self.problem))


class ConditionError(Exception):
    """A condition or an output that makes no sense, and where in its text it does not."""

    def __init__(self, text: str, at: int, *, unknown: bool = False) -> None:
        """unknown: a field or a type of event that does not exist, for which a rule may be skipped."""
        super().__init__(text)
        self.text, self.at, self.unknown = text, at, unknown
