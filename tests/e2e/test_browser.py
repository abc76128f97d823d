from __future__ import annotations

import subprocess
from pathlib import Path

from tests.e2e.conftest import gadget

FLOWS = Path(__file__).parents[1] / "unit/advise/golden/merged-rules/flows.jsonl"
#: What a user does: points at a box.
POINT = "<script>document.querySelector('#s1').onmouseenter()</script>"


def test_graph_in_a_browser(tmp_path: Path) -> None:
    """The graph opens in a browser without a network, and pointing at a box shows its connections alone."""
    page = tmp_path / "graph.html"
    drawn = gadget("advise", "network-policy", "graph", "--input", str(FLOWS), "-A", "-o", "html").stdout
    page.write_text(drawn.replace("</html>", f"{POINT}</html>"))
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run(
        ["unshare", "--net", *browser, f"--user-data-dir={tmp_path}/profile", page.as_uri()],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("<tr data-from")]
    assert len(rows) == 3
    shown = [row for row in rows if 'class="hidden"' not in row]
    assert len(shown) == 1 and "shop/db" in shown[0]
