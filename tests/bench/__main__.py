"""Runs measurements: python -m tests.bench [--json] [NAME …]."""

from __future__ import annotations

import json
import statistics

import click

from tests.bench import advise, cli, fanout, kernel, traceloop

ALL = (
    advise.advise_seconds,
    advise.advise_memory,
    cli.help_text,
    cli.first_event,
    cli.json_rows,
    cli.column_rows,
    fanout.cpu_of_200_agents,
    fanout.memory_of_200_agents,
    fanout.late_of_200_agents,
    kernel.exec_not_chosen,
    kernel.syscall_beside_execsnoop,
    traceloop.call_beside_empty_program,
    traceloop.call_not_recorded,
    traceloop.call_recorded,
    traceloop.strace_to_recorded,
    traceloop.tar_recorded,
    traceloop.tar_straced,
)
MEASUREMENTS = {function.__name__: function for function in ALL}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.argument("names", nargs=-1, type=click.Choice(list(MEASUREMENTS)))
def main(as_json: bool, names: tuple[str, ...]) -> None:
    """Print name, median and spread of each measurement, all of them unless some are named."""
    for name in names or MEASUREMENTS:
        unit, values = MEASUREMENTS[name]()
        result = {
            "name": name,
            "unit": unit,
            "median": statistics.median(values),
            "min": min(values),
            "max": max(values),
        }
        line = f"{name:26} {result['median']:10.3f} {unit:10} ({result['min']:.3f} to {result['max']:.3f})"
        click.echo(json.dumps(result) if as_json else line)


if __name__ == "__main__":
    main()
