"""Dataclasses of values, made faster than the standard library's: those take 0.7 ms each, and a stream begins with 30.

They compare, hash and show themselves as the others do. What writes to one is found by mypy and not when it runs.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass
else:
    import dataclasses

    def dataclass(*, frozen: bool, **how: bool) -> Callable[[type], type]:
        """As dataclasses.dataclass(frozen=True)."""
        assert frozen

        def make(made: type) -> type:
            made = dataclasses.dataclass(eq=False, repr=False, **how)(made)
            fields = [field for field in dataclasses.fields(made) if field.compare]
            values = attrgetter(*(field.name for field in fields))

            def equal(self: Any, other: object) -> bool:
                return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

            def show(self: Any) -> str:
                told = ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self))
                return f"{type(self).__qualname__}({told})"

            hashed = attrgetter(*(field.name for field in fields if field.hash is not False))
            made.__eq__, made.__hash__, made.__repr__ = equal, lambda self: hash(hashed(self)), show
            return made

        return make
