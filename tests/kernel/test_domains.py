"""Names of addresses in real containers."""

from __future__ import annotations

import socket
from contextlib import closing

from agent.containers.tracker import Tracker
from agent.domains import Domains, Follower
from agent.limits import RunBudget
from agent.run.runs import Runs
from tests.conftest import wait_until
from tests.dns import ADDRESSES
from tests.live import start_python_in


def test_names_of_a_pod(pair) -> None:
    """An address that a pod was given by DNS has the name that it asked for, in that pod and not in the server's."""
    cart, web = pair
    runs, domains = Runs(), Domains()
    with closing(Tracker()) as tracker, closing(Follower(domains, runs, tracker, RunBudget())) as follower:
        ids = {each.container.id: each.id for each in tracker.containers() if each.container}
        wait_until(lambda: domains.read_ns > 0, "the run")
        assert follower.problem == ""
        with start_python_in(web, "tests.dns", "serve", "10.77.0.2") as server:
            assert server.stdout and server.stdout.readline() == "ready\n"
            with start_python_in(cart, "tests.dns", "ask", "10.77.0.2") as client:
                addresses = [socket.inet_aton(each) for each in ("10.0.0.1", "10.0.0.2")]
                wait_until(lambda: domains.names(ids[cart.id], addresses[1]) == (ADDRESSES,), "the name")
                client.kill()
            server.kill()
        assert domains.names(ids[cart.id], addresses[0]) == (ADDRESSES,)
        assert domains.names(ids[web.id], addresses[0]) == ()
        assert follower.lost == 0
    assert not follower.worker.is_alive
    assert runs.all() == []
