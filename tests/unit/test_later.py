from __future__ import annotations

import inspect
import subprocess
import sys
from uuid import UUID

import pytest

from gadget import later


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "name",
    [
        *("asyncio.events", "grpc.aio._channel", "ssl", "google.protobuf.internal.decoder", "msgspec", "shutil"),
        *("numpy._typing", "numpy.linalg._linalg", "http.client", "gadget.kube.kubeconfig"),
        # what these import once they are executed: uuid, inspect, traceback, pickle
        *("_uuid", "dis", "tokenize", "_pickle"),
    ],
)
def test_a_command_starts_without_what_it_does_not_use(name: str) -> None:
    """The first event is there sooner, and takes less memory: nothing is imported that a stream has no use for."""
    what = (
        "kubectl_gadget.cli, kubectl_gadget.commands, kubectl_gadget.cluster.directory, kubectl_gadget.stream.session"
    )
    assert run(f"import sys, {what}; print({name!r} in sys.modules)") == "False\n"


def test_a_command_makes_its_own_gadget_alone() -> None:
    """A stream does not wait until 40 other gadgets have been read."""
    assert (
        run("from gadget import catalog; catalog.find('opensnoop'); print([*catalog.load().made])") == "['opensnoop']\n"
    )


def test_what_was_left_is_there_when_it_is_used() -> None:
    """A library that does need what we left out gets it: whatever is asked for is imported then."""
    code = """
import gadget, grpc, asyncio, numpy
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as pool:
    found = set(pool.map(lambda _: grpc.aio.insecure_channel, range(8)))
asyncio.run(asyncio.sleep(0))
from asyncio import *
from google.protobuf.internal import python_message
import pathlib
print(pathlib.Path("/a b").as_uri())
print(len(found), python_message.GeneratedProtocolMessageType.__name__, Queue.__module__)
"""
    assert run(code) == "file:///a%20b\n1 GeneratedProtocolMessageType asyncio.queues\n"


def test_a_class_that_was_left_is_what_it_is() -> None:
    """A library that took a class out of what we left out may make things of it, and ask whether a thing is one."""
    code = """
import gadget, sys, uuid
from uuid import UUID
print("_uuid" in sys.modules, isinstance(3, UUID), "_uuid" in sys.modules)
print(isinstance(uuid.uuid4(), UUID), UUID(int=1))
"""
    assert run(code) == f"False False True\nTrue {UUID(int=1)}\n"


def test_help_of_numpy_is_left_alone() -> None:
    """What numpy says of its functions' arguments is not looked up at each start; others ask inspect as ever."""
    code = "import gadget, inspect, numpy, sys; print('dis' in sys.modules, inspect.signature(lambda a: a))"
    assert run(code) == "False (a)\n"


def test_numpy_starts_no_threads() -> None:
    """On a machine of 64 processors a command does not begin with 64 threads for linear algebra."""
    code = "import kubectl_gadget.stream.session, os; print(len(os.listdir('/proc/self/task')))"
    assert run(code) == "1\n"


def test_agents_are_at_work_before_numpy_is_there() -> None:
    """The first event does not wait for numpy: an agent has been asked before it, and what it needs, is imported."""
    code = "import sys, kubectl_gadget.stream.begin, kubectl_gadget.cli, kubectl_gadget.commands"
    assert run(f"{code}; print({{'numpy', 'dis'}} & sys.modules.keys())") == "set()\n"


def test_a_command_imports_its_own_alone() -> None:
    """What deploy, why and the others need does not make a stream begin later."""
    code = """
import sys
from kubectl_gadget.cli import main
main(["execsnoop", "--help"])
print([name for name in sys.modules if name.count(".") == 2 and name.endswith(".commands")])
"""
    assert run(code).splitlines()[-1] == "[]"


@pytest.mark.parametrize("text", ["", " one ", "one\n\n  two\n    three \n\n", "\n\n\ttwo\n three\n  ", " \n ", "a\nb"])
def test_what_stands_in_for_a_function_does_the_same(text: str) -> None:
    """Help and documentation of libraries are as ever."""
    assert later.INSTEAD["inspect"]["cleandoc"](text) == inspect.cleandoc(text)
