from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from agent.health import main, serves

STATUS = health_pb2.HealthCheckResponse


@pytest.fixture
def server() -> Iterator[tuple[int, health.HealthServicer]]:
    running = grpc.server(ThreadPoolExecutor(2))
    checks = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, running)
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    yield port, checks
    running.stop(0).wait()


@pytest.mark.parametrize(("status", "well"), [(STATUS.SERVING, True), (STATUS.NOT_SERVING, False)])
def test_health(server: tuple[int, health.HealthServicer], status: int, well: bool) -> None:
    """A probe sees what the agent's health service says."""
    port, checks = server
    checks.set("", status)
    assert serves("127.0.0.1", port) is well


def test_no_service() -> None:
    """A gRPC server without the health service does not serve, and no server at all is an error."""
    running = grpc.server(ThreadPoolExecutor(2))
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    assert not serves("127.0.0.1", port)
    running.stop(0).wait()
    with pytest.raises(OSError):
        serves("127.0.0.1", port)


@pytest.mark.parametrize("given", [["--help"], ["-h"], [], ["7070"], ["127.0.0.1:http"], ["127.0.0.1:7070", "more"]])
def test_how_it_is_called(given: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """I am told how the probe is called, and not by a traceback."""
    monkeypatch.setattr("sys.argv", ["gadget-agent-health", *given])
    if given[:1] in (["--help"], ["-h"]):
        main()
        assert "usage: gadget-agent-health HOST:PORT" in capsys.readouterr().out
    else:
        with pytest.raises(SystemExit, match="usage: gadget-agent-health HOST:PORT"):
            main()
