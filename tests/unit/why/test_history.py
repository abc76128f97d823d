"""What follows from a recording of which the beginning is gone."""

from __future__ import annotations

from kubectl_gadget.why.history import CallHistory
from tests.unit.why.stories import Story


def test_main_of_an_old_recording() -> None:
    """Where the beginning is overwritten a program that kubectl exec began meanwhile is not taken for the container's own."""
    story = Story(pid=100).opens("/etc/app.conf").call("read", 7).call("read", 3, pid=5000)
    story.call("exit_group", 1, result="", pid=5000).ends(1 << 8, pid=5000).exits(1)
    history = CallHistory(story.entries[1:], {5000: (story.now, story.now)}, status=story.status)
    assert history.main == 100
