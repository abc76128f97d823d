"""Everything on for a while: two minutes in CI, twenty with `make soak`. Its figures are shown at the end of the run."""

from __future__ import annotations

import os
import re
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.conftest import events, run_cli, wait_until
from tests.faults.production import Producer, Watched, ended, lost_in
from tests.faults.test_leaks import holds, own_memory
from tests.kernel.flows import serve, talk
from tests.loaded import maps_of
from tests.pods import BareContainer

SECONDS = int(os.environ.get("SOAK_SECONDS", "120"))
#: What a process may grow by, by the slope of its memory after the first fifth, and by the medians of the second fifth
#: and the last: an agent remembers the containers and pods of a while, at about 1 KB each.
MOST_BYTES = 8 << 20
#: An agent's own memory, at any moment; and the kernel's of its maps: recordings, rings of four runs, tables.
MOST_AGENT_BYTES = 80 << 20
RECORDINGS_MIB, RING_MIB, TABLES_MIB = 16, 12, 24
MOST_MAP_BYTES = (RECORDINGS_MIB + 4 * RING_MIB + TABLES_MIB) << 20


@contextmanager
def again_and_again(every_seconds: float, do: Callable[[int], None]) -> Iterator[list[int]]:
    """Do something while the block runs; gives a list that says how often it was done, and fails if it failed."""
    enough, done, failures = threading.Event(), [0], []

    def go_on() -> None:
        try:
            while not enough.wait(every_seconds):
                do(done[0])
                done[0] += 1
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield done
    finally:
        enough.set()
        thread.join()
    assert not failures, failures


def shown(cli: Watched) -> int:
    """How many events a stream that has ended says it showed."""
    found = re.search(r"^(\d+) events? from ", cli.err, re.MULTILINE)
    assert found, cli.err
    return int(found[1])


@pytest.mark.timeout(SECONDS + 180)
def test_soak(bpffs: Path, start_agent, pair, workload, tmp_path: Path, figure) -> None:
    """With every recorder and every gadget on, containers that come and go, and people who ask, hour after hour: memory
    stays flat, no file or thread is left, and what is seen and what is counted as lost is all that happened.
    """
    cart, web = pair
    server = serve(web, "tcp", 8080)

    def in_maps() -> int:
        return sum(each.get("bytes_memlock", 0) for each in maps_of(agent.process.pid, bpffs))

    with Producer(workload("produce")) as producer:
        churning = f"{producer.namespace}-churn"
        recorded = f"{producer.namespace},{churning},shop"
        agent = start_agent(
            *("--bpffs", str(bpffs), "--state", str(tmp_path / "state")),
            *("--traceloop", recorded, "--traceloop-memory", str(RECORDINGS_MIB)),
        )
        namespaces = {"opensnoop": producer.namespace, "execsnoop": churning, "tcpconnect": "shop", "tcptracer": "shop"}
        with Path(os.devnull).open("wb") as nowhere:
            streams = {
                gadget: Watched(
                    tmp_path, gadget, "-o", "json", "-n", namespace, "--agent", agent.address, stdout=nowhere
                )
                for gadget, namespace in namespaces.items()
            }
        wait_until(lambda: agent.log.read_text().count(": started for") == len(streams), "the streams")

        def churn(number: int) -> None:
            container = BareContainer(churning, f"churn-{number}")
            container.run("/bin/true")
            container.delete()

        questions = (["status"], ["traceloop", "list"], ["containers"], ["traceloop", "show", "cart-0", "-n", "shop"])

        def ask(number: int) -> None:
            done = run_cli(*questions[number % len(questions)], "--agent", agent.address)
            assert done.returncode == 0, done.stderr

        processes = {"agent": agent.process.pid} | {name: cli.process.pid for name, cli in streams.items()}
        samples: list[dict[str, int]] = []
        with ExitStack() as stack:
            stack.enter_context(producer.steadily(20, 0.01))
            churned = stack.enter_context(again_and_again(0.2, churn))
            talked = stack.enter_context(again_and_again(1.0, lambda _: talk(cart, "ask", "tcp", "10.77.0.2", 8080, 3)))
            asked = stack.enter_context(again_and_again(3.0, ask))
            began = time.monotonic()
            while time.monotonic() - began < SECONDS:
                time.sleep(1)
                samples.append({name: own_memory(pid) for name, pid in processes.items()})
                if len(samples) == max(SECONDS // 5, 1):
                    warm, warm_maps = holds(agent.process.pid), in_maps()
            after, after_maps = holds(agent.process.pid), in_maps()
        (status,) = events(run_cli("status", "--agent", agent.address, "-o", "json").stdout)
        for cli in streams.values():
            cli.process.send_signal(signal.SIGINT)
            assert ended(cli) == 0, cli.err
    server.kill()
    server.wait()
    fifth = len(samples) // 5
    figure(
        f"in {SECONDS} s",
        f"{producer.made} opens, {churned[0]} containers, {3 * talked[0]} connections, {asked[0]} questions",
    )
    for name in processes:
        early, late = (
            statistics.median(sample[name] for sample in part)
            for part in (samples[fifth : 2 * fifth], samples[-fifth:])
        )
        highest = max(sample[name] for sample in samples)
        lost = f", {shown(streams[name])} seen, {lost_in(streams[name].err)} lost" if name in streams else ""
        slope, _ = statistics.linear_regression(
            range(fifth, len(samples)), [sample[name] for sample in samples[fifth:]]
        )
        grown = slope * (len(samples) - fifth)
        figure(
            name,
            f"{early / 1e6:.1f} MB, later {late / 1e6:.1f}, at most {highest / 1e6:.1f}, by its slope {grown / 1e6:+.1f}{lost}",
        )
        assert max(grown, late - early) < MOST_BYTES, name
        assert name != "agent" or highest < MOST_AGENT_BYTES
    figure("agent's files", f"{warm.files}, later {after.files}; {warm.threads} threads, later {after.threads}")
    figure("agent's maps", f"{warm_maps / 1e6:.1f} MB, later {after_maps / 1e6:.1f}")
    figure("recorders", f"traceloop: {status['traceloop']}; flows: {status['flows']}")
    assert after_maps < MOST_MAP_BYTES and after_maps - warm_maps <= 1 << 20
    opened, lost = shown(streams["opensnoop"]), lost_in(streams["opensnoop"].err)
    if "container not known" in streams["opensnoop"].err:  # what a container of the churn opened may have been meant
        assert opened <= producer.made <= opened + lost
    else:
        assert opened + lost == producer.made
    assert shown(streams["execsnoop"]) + lost_in(streams["execsnoop"].err) == churned[0]
    assert shown(streams["tcpconnect"]) + lost_in(streams["tcpconnect"].err) >= 3 * talked[0]
    assert shown(streams["tcptracer"]) + lost_in(streams["tcptracer"].err) >= 2 * 3 * talked[0]
    assert after.files <= warm.files + 8 and after.threads <= warm.threads + 8
    assert "Traceback" not in agent.log.read_text()
