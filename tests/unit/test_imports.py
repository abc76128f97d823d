from __future__ import annotations

import importlib
import pkgutil

import pytest

import tests

MODULES = [module.name for module in pkgutil.walk_packages(tests.__path__, "tests.") if "__main__" not in module.name]


@pytest.mark.parametrize("name", MODULES)
def test_imports(name: str) -> None:
    """What only CI's later steps run (faults, the real cluster, kernels, benchmarks) can be imported: `make test` says so at once."""
    importlib.import_module(name)
