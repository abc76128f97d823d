"""The services of the agent: each module here has a SERVICE (agent/service.py), and is found by being here."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from agent.service import Service


def find_services() -> dict[str, Service[Any]]:
    """Every service by its name, in the order to begin them: those that keep what nobody can see later come first."""
    modules = [importlib.import_module(f"{__name__}.{each.name}") for each in pkgutil.iter_modules(__path__)]
    found: list[Service[Any]] = [module.SERVICE for module in modules]
    return {each.name: each for each in sorted(found, key=lambda each: (not each.kept, each.name))}
