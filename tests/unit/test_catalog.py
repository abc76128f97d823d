from __future__ import annotations

import re
from pathlib import Path

from gadget import catalog

ROOT = Path(__file__).parents[2]


def test_only_its_folder_knows_a_gadget() -> None:
    """A gadget is one folder: no code knows its name, but for a command that users are shown as an example."""
    names = list(catalog.load())
    known = re.compile(rf"(?<!kubectl gadget )\b({'|'.join(names)})\b")
    files = [
        path
        for folder in ("agent", "gadget", "kubectl_gadget", "docs")
        for path in (ROOT / folder).rglob("*.py")
        if "_generated" not in path.parts
    ]
    files += [ROOT / "hatch_build.py", ROOT / "build_syscalls.py"]
    assert len(names) >= 4 and len(files) > 50
    hits = {str(path.relative_to(ROOT)): known.findall(path.read_text()) for path in files}
    assert {path: found for path, found in hits.items() if found} == {}
