"""Delays modules that libraries import and that we do not use: they load when something in them is first used.

Together they take 9 MiB and a third of the time to the first event.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import PathFinder
from threading import RLock
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # its import takes longer than the typing it would save here
    from importlib.abc import Loader, MetaPathFinder
    from importlib.machinery import ModuleSpec
else:
    Loader = MetaPathFinder = object

#: Each is imported by what is named, which then does no more with it than to have it.
UNUSED = frozenset(
    {
        "asyncio",  # grpc._cython.cygrpc: for grpc.aio
        "grpc.aio",  # grpc
        "google.protobuf.internal.python_message",  # google.protobuf.descriptor_pool: for where upb is not
        "inspect",  # click and dataclasses; and it ast, dis and tokenize
        "uuid",  # click.types; and orjson, which then takes no UUIDs: nothing here has any
        "calendar",  # google.protobuf.internal.well_known_types
        "pkgutil",  # grpc._cython.cygrpc: for TLS
        "platform",  # uuid and numpy.lib
        "textwrap",  # numpy.lib
        "traceback",  # logging; and it linecache and tokenize
        "pickle",  # numpy._core._methods
        "numpy._core._add_newdocs",  # numpy._core: 7,000 lines of what help() shows
        "numpy._core._add_newdocs_scalars",
        "urllib.parse",  # pathlib
        "numpy.linalg",  # numpy.lib and numpy.matrixlib; and it numpy._typing
    }
)


#: What others take out of a module as they are imported, and use no more than the module itself: functions and classes.
FUNCTIONS = {
    "numpy.linalg": ("eigvals", "inv", "lstsq", "matrix_power"),
    "urllib.parse": ("quote", "quote_from_bytes"),
    "uuid": ("UUID",),
}


def _cleandoc(text: str) -> str:
    """As inspect.cleandoc: click and numpy use it as they are imported, and nothing else of that module."""
    first, *others = text.expandtabs().split("\n")
    margin = min((len(line) - len(line.lstrip()) for line in others if line.lstrip()), default=0)
    lines = [first.lstrip(), *(line[margin:] for line in others)]
    while lines and not lines[-1]:
        lines.pop()
    while lines and not lines[0]:
        lines.pop(0)
    return "\n".join(lines)


def _signature(*args: Any, **options: Any) -> Any:
    """As inspect.signature, but None for numpy: it keeps signatures, as it is imported, for what help() shows."""
    if sys._getframe(1).f_globals.get("__name__") == "numpy._core.overrides":
        return None
    inspect: Any = sys.modules["inspect"]
    inspect.getdoc  # noqa: B018  # from here on the module is there
    return inspect.signature(*args, **options)


#: What stands in for functions while their modules are not there.
INSTEAD: dict[str, dict[str, Callable[..., Any]]] = {"inspect": {"cleandoc": _cleandoc, "signature": _signature}}


class _StandIn(type):
    """A function or class of a module that is executed when this is called, or asked whether it is a thing's class."""

    real: Callable[[], Any]

    def __call__(cls, *args: Any, **options: Any) -> Any:
        return cls.real()(*args, **options)

    def __instancecheck__(cls, thing: object) -> bool:
        return isinstance(thing, cls.real())


class _Later(Loader):
    """Makes a module that is executed when a name in it is first looked for."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._lock = RLock()

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        begun = False

        def find(name: str) -> Any:  # PEP 562
            nonlocal begun
            if name == "__path__":  # which `from` asks for, and which a package has from the beginning
                raise AttributeError(f"module {module.__name__!r} is no package")
            with self._lock:  # others wait until all of it is there
                if not begun:
                    begun = True
                    self._loader.exec_module(module)
                    if module.__dict__.get("__getattr__") is find:
                        del module.__dict__["__getattr__"]
                elif name not in module.__dict__ and module.__dict__.get("__getattr__") is find:
                    raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            return getattr(module, name)

        def stand_in(name: str) -> Any:
            return _StandIn(name, (), {"real": staticmethod(lambda: _executed(name))})

        def _executed(name: str) -> Any:
            if not begun:
                find("__doc__")
            return module.__dict__[name]

        module.__dict__["__getattr__"] = find
        names = FUNCTIONS.get(module.__name__, ())
        module.__dict__.update({name: stand_in(name) for name in names} | INSTEAD.get(module.__name__, {}))


class _Finder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in UNUSED else None
        if spec and spec.loader:
            spec.loader = _Later(spec.loader)
        return spec


def leave_unused() -> None:
    """Let modules of UNUSED that are imported from now on wait until they are used; and numpy start no threads.

    Its linear algebra has one for each processor, which nothing here needs and which spin as they begin.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
