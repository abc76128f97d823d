from __future__ import annotations

import re
from pathlib import Path

import pytest

from gadget import catalog
from gadget.errors import UsageError

ROOT = Path(__file__).parents[2]


#: What is made of the events or words of certain gadgets.
CONSUMERS = {
    "agent/domains.py": {"dnssnoop"},
    "gadget/rules/words.py": {"opensnoop", "privsnoop", "mountsnoop", "capable"},
    "kubectl_gadget/advise/capabilities/commands.py": {"capable"},
}


def test_only_its_folder_knows_a_gadget() -> None:
    """A gadget is one folder: no code knows its name, but for a command that users are shown as an example.

    What consumes the events of one names it, and no other.
    """
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
    hits = {str(path.relative_to(ROOT)): {*known.findall(path.read_text())} for path in files}
    assert {path: found for path, found in hits.items() if found} == CONSUMERS


def test_hidden() -> None:
    """What only the agent itself begins is in no list, help or completion, and takes no command's name."""
    assert catalog.find("detect").hidden
    assert "detect" not in catalog.load()
    assert all(not gadget.hidden for gadget in catalog.load().values())
    with pytest.raises(UsageError) as refused:
        catalog.find("nothing")
    assert "detect" not in str(refused.value)
