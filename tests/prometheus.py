"""A real Prometheus that scrapes what tests serve, and its promtool."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote


def check(text: str) -> None:
    """Have promtool find nothing to complain of in numbers."""
    told = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout + told.stderr) == (0, "")


@contextmanager
def scraping(folder: Path, port: int) -> Iterator[Callable[[str], float | None]]:
    """A Prometheus that scrapes a port of this machine every second; gives what asks it for one value, if it has one."""
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: gadget, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        own = free.getsockname()[1]

    def value(query: str) -> float | None:
        url = f"http://127.0.0.1:{own}/api/v1/query?query={quote(query)}"
        with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            found = json.load(answer)["data"]["result"]
            return float(found[0]["value"][1]) if found else None
        return None

    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/data"]
    with subprocess.Popen(
        [*command, f"--web.listen-address=127.0.0.1:{own}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield value
        finally:
            process.terminate()
