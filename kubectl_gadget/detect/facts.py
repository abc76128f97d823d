"""`detect verify`: facts on Falco's language, and whether they are true here."""

from __future__ import annotations

from pathlib import Path

import click

from kubectl_gadget.detect.given import Wrong, files_argument, form_option, read_rules, rules_option
from kubectl_gadget.headed import HeadedCommand
from kubectl_gadget.tell import write_json, write_line


def verify_command() -> click.Command:
    """`detect verify`."""
    title = "what files state of Falco's language: how much is true here"
    example = "kubectl gadget detect verify --rules falco_rules.yaml cases.yaml corpus.jsonl"
    rules = rules_option("Rules that the files are about, in the order in which they are loaded.")
    return HeadedCommand("verify", title, example, [files_argument(), rules, form_option()], _verify, verb="Judges")


def _verify(files: tuple[Path, ...], rules: tuple[Path, ...], form: str) -> None:
    from gadget.rules.verify import verify

    known = read_rules(rules)
    wrong = 0
    for path in files:
        verdict = verify(path, known)
        wrong += len(verdict.wrong)
        if form == "json":
            import orjson

            told = {"file": str(path), "right": verdict.right, "of": verdict.right + len(verdict.wrong)}
            write_json(orjson.dumps({**told, "wrong": verdict.wrong}).decode())
            continue
        for each in verdict.wrong:
            write_line(each)
        write_line(f"{path}: {verdict.right} of {verdict.right + len(verdict.wrong)} are right")
    if wrong:
        raise Wrong(f"{wrong} facts are not as they should be")
