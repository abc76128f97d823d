"""Core tests: a function for each gadget, of its name."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from inspect import getmembers, isfunction, signature

from tests.vm.machine import Core


def all_cases() -> Iterator[Callable[[Core], None]]:
    """Each function of the modules here that takes a Core alone."""
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        for _, found in getmembers(import_module(module.name), isfunction):
            if found.__module__ == module.name and [*signature(found).parameters] == ["core"]:
                yield found
