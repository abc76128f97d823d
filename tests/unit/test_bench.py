from __future__ import annotations

import json

from tests.bench import Figure, Goal
from tests.bench.page import PAGE, render
from tests.bench.sections import OPENS
from tests.bench.summary import KEYS, Place

FIGURES = [
    Figure(OPENS, "µs", [2.0, 1.0, 4.0], "CPU per event", Goal(1.5, missed="It does more.")),
    Figure(OPENS, "%", [100.0], "shown", Goal(100, at_least=True)),
    Figure("theirs", "µs", [9.0], "CPU per event", made=71_234.0),
    Figure("no tool", "µs", [9.0], "CPU per event"),
    Figure("absent", "", [], why="needs a kprobe"),
]


def test_page() -> None:
    """The page says medians, spread, ratios and runs, which goals are missed by how much, at which rate events were really
    made, and why a peer is not there. What a tool adds is put beside what others add, not beside the work itself.
    """
    page = render({"kernel": "Linux 6"}, [figure.to_json("opensnoop") for figure in FIGURES])
    for line in (
        "| kernel | Linux 6 |",
        "| | CPU per event, µs | shown, % | runs |",
        "| kubectl gadget opensnoop, as JSON | 2 (1 to 4) | 100 | 3 (shown: 1) |",
        "| theirs | 9 × 4.5 of 71,234/s made | – | 1 |",
        "| no tool | 9 | – | 1 |",
        "| absent | – | – | – |",
        "- Goal: kubectl gadget opensnoop, as JSON, CPU per event at most 1.5: **missed** by 33%. It does more.",
        "- Goal: kubectl gadget opensnoop, as JSON, shown at least 100: met",
        "- Goal: kubectl gadget opensnoop, as JSON, CPU per event no more than the best peer (theirs), at most 9: met",
        "- absent: needs a kprobe",
    ):
        assert line in page.splitlines(), page


def test_page_begins_with_ten_figures() -> None:
    """The page begins with at most ten figures, each beside another tool's where one was measured, all of kept ones."""
    kept = [json.loads(line) for line in PAGE.with_suffix(".jsonl").read_text().splitlines()]
    found = {Place(item["table"], item["row"], item["column"]) for item in kept[1:]}
    assert len(KEYS) <= 10
    assert {place for key in KEYS for place in (key.place, key.beside) if place} <= found
    page = render(kept[0]["machine"], kept[1:])
    assert page.index("## In short") < page.index("## All of it")
    assert PAGE.read_text().startswith(page[: page.index("## All of it")])
