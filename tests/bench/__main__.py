"""Runs measurements: python -m tests.bench [--quick] [--ig] [--json] [--page] [SECTION …]."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from tests.bench import Figure, Plan, Section
from tests.bench.ig import built
from tests.bench.machine import describe, enter_tracing
from tests.bench.page import PAGE, render
from tests.bench.peers import DoesNotWork
from tests.bench.sections import SECTIONS
from tests.leftovers import alone

FAILED = "the measurement failed"
NAMES = [section.name for section in SECTIONS]


def _measure(sections: list[Section], plan: Plan) -> Iterator[dict[str, Any]]:
    for section in sections:
        for measurement in section.measurements:
            try:
                for figure in measurement(plan):
                    yield figure.to_json(section.name)
            except Exception as error:  # the others are worth having
                traceback.print_exc()
                why = f"{FAILED}: {error}"
                yield Figure(measurement.__name__, "", [], why=why).to_json(section.name)


def _line(item: dict[str, Any]) -> str:
    what = f"{item['table']}: {item['row']}" + (f", {item['column']}" if item["column"] else "")
    if not item["runs"]:
        return f"{what}: {item['why']}"
    return f"{what}: {item['median']:.3f} {item['unit']} ({item['min']:.3f} to {item['max']:.3f})"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: the machine, then the figures.")
@click.option("--page", is_flag=True, help="Write docs/benchmarks.md, and what --json prints beside it.")
@click.option("--quick", is_flag=True, help="One short run of each: to see that it works.")
@click.option("--ig", is_flag=True, help="Beside Inspektor Gadget too, which is built from source at first: needs Go.")
@click.option("--keep", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="What --json has printed before: sections that are not measured now are taken from there.")  # fmt: skip
@click.argument("names", nargs=-1, metavar="[SECTION]…", type=click.Choice([*NAMES, "none"]))
def main(as_json: bool, page: bool, quick: bool, ig: bool, keep: Path | None, names: tuple[str, ...]) -> None:
    """Measure beside peers, all sections unless some are named; see docs/benchmarks.md."""
    enter_tracing()
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # nothing is left behind, also if a shell began this in the background
        signal.signal(number, signal.default_int_handler)
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    wanted = [section for section in SECTIONS if section.name in (names or NAMES)]
    kept = [json.loads(line) for line in keep.read_text().splitlines()] if keep else []
    machine = (kept[:1] or [{"machine": describe()}])[0]
    figures = [item for item in kept[1:] if item["table"] not in (names or NAMES)]
    for item in (machine, *figures) if as_json else ():
        click.echo(json.dumps(item))
    if ig:
        with suppress(DoesNotWork):  # which its rows will say; others need not wait while it is built
            built()
    with alone():
        for item in _measure(wanted, Plan(quick, ig)):
            figures.append(item)
            click.echo(json.dumps(item) if as_json else _line(item))
            sys.stdout.flush()
    if page:
        PAGE.write_text(render(machine["machine"], figures))
        PAGE.with_suffix(".jsonl").write_text("".join(f"{json.dumps(item)}\n" for item in (machine, *figures)))
    if any(item["why"].startswith(FAILED) for item in figures):
        sys.exit(1)


if __name__ == "__main__":
    main()
