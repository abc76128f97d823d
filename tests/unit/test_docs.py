from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click

from gadget._generated import gadget_pb2 as pb
from kubectl_gadget.agents.targets import Agent
from kubectl_gadget.cli import cli
from kubectl_gadget.traceloop.calls import ReplyReader
from kubectl_gadget.traceloop.instances import Instance
from kubectl_gadget.traceloop.show import Head, to_json
from tests.unit.traceloop.replies import record, reply
from tools.generate import pages

ROOT = Path(__file__).parents[2]


def test_gadget_pages_are_fresh() -> None:
    """The page of a gadget says what the gadget does today (`make docs` writes it)."""
    for path, text in pages().items():
        assert path.read_text() == text, f"{path.name}: run make docs"


def test_links_lead_somewhere() -> None:
    """Every file that a page links to is there."""
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"


def sections(page: Path) -> set[str]:
    """The names of a page's sections in links, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    heads = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", head) for head in re.findall(r"^#+ (.*)$", text, re.MULTILINE))
    return {re.sub(r"[^\w\- ]", "", head.strip().lower()).replace(" ", "-") for head in heads}


def test_links_lead_to_sections() -> None:
    """Every section that a page links to is there."""
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target, section in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
            assert section in sections(page.parent / target if target else page), f"{page}: {target}#{section}"


def written_commands() -> Iterator[tuple[str, list[str]]]:
    """Command lines of ours on the pages: where, and their words up to what a shell or a reader takes for something else."""
    whole = re.compile(r"`(?:sudo )?kubectl gadget ([^`]+)`|^\s*\$? ?(?:sudo )?kubectl gadget ([^`\n]*)$", re.MULTILINE)
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for found in whole.finditer(page.read_text().replace("\\\n", " ")):
            line = re.split(r"\s[|>#&<]|  |…", found[1] or found[2])[0]
            yield f"{page.name}: {line}", line.split()


def test_commands_can_be_typed() -> None:
    """Every command line on a page has a command that there is, with options that it takes."""
    wrong, count = [], 0
    for where, words in written_commands():
        command: click.Command = cli
        context = click.Context(cli)
        while words and isinstance(command, click.Group) and (found := command.get_command(context, words[0])):
            command = found
            context = click.Context(found, context, words.pop(0))
        taken = {name for param in command.params for name in (*param.opts, *param.secondary_opts)} | {"--help", "-h"}
        options = [found[0] for word in words if (found := re.match(r"--[a-z0-9-]+|-[A-Za-z]$", word))]
        wrong += [f"{where}: {each}" for each in options if each not in taken]
        count += 1
    assert wrong == []
    assert count > 150


def test_index_has_every_page() -> None:
    """Every page can be found from the index, in one step; decisions from theirs."""
    for folder in (ROOT / "docs", ROOT / "docs/decisions"):
        linked = set(re.findall(r"\]\(([^)#:]+)\)", (folder / "README.md").read_text()))
        pages = {str(page.relative_to(folder)) for page in [*folder.glob("*.md"), *folder.glob("gadgets/*.md")]}
        assert pages - {"README.md"} <= linked


def test_no_hand_kept_mirrors() -> None:
    """Nothing has to be kept the same in two places by hand."""
    phrase = "keep in " + "sync"
    found = subprocess.run(["git", "grep", "-il", phrase], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout == ""


def test_json_keys_are_documented() -> None:
    """Every key and event of the JSON of `traceloop show` is on its page."""
    page = (ROOT / "docs/traceloop.md").read_text()
    given = [record(1), record(3, "KIND_SIGNAL", args=[11, 1, 16]), record(4, "KIND_PROCESS_EXIT")]
    entries = ReplyReader().entries(reply(*given))
    objects = [to_json(entry) for entry in entries]
    head = Head(Instance(Agent("", ""), "node-a", pb.TraceloopItem()), 1, 0).to_json()
    assert {each["event"] for each in objects} == {"call", "gap", "signal", "process_exit"}
    for key in {key for each in [*objects, head] for key in each} | {each["event"] for each in objects} | {"blocked"}:
        assert re.search(rf"`{key}`", page), key
