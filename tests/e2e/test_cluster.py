from __future__ import annotations

import json
import subprocess


def test_nodes_are_ready() -> None:
    """The cluster that these tests run on is real, and every node of it can run pods."""
    shown = subprocess.run(["kubectl", "get", "nodes", "--output=json"], capture_output=True, check=True)
    nodes = json.loads(shown.stdout)["items"]
    ready = {
        node["metadata"]["name"]
        for node in nodes
        for condition in node["status"]["conditions"]
        if condition["type"] == "Ready" and condition["status"] == "True"
    }
    assert ready and len(ready) == len(nodes)
