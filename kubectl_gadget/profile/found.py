"""The forms of `profile -o`: the modules of kubectl_gadget/profile/forms. Nothing else knows their names."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from kubectl_gadget.profile import forms as package
from kubectl_gadget.profile.stacks import ProfileForm


@cache
def all_forms() -> dict[str, ProfileForm]:
    """Those that there are, by name."""
    names = [each.name for each in pkgutil.iter_modules(package.__path__)]
    found: list[ProfileForm] = [importlib.import_module(f"{package.__name__}.{name}").FORM for name in names]
    return {form.name: form for form in found}
