"""The errors users see, and the exit code of each.

Exit codes: 0 done; 1 it could not be done; 2 the command line is wrong; 3 --strict and something was lost.
"""

from __future__ import annotations


class GadgetError(Exception):
    """Something a user can act on: one line saying what happened and what to do."""

    exit_code = 1


class UsageError(GadgetError):
    """What was asked for does not exist or makes no sense."""

    exit_code = 2


class Unsupported(GadgetError):
    """This machine lacks what is needed: a kernel feature, a library, a privilege."""


class NoRights(Unsupported):
    """The agent may not do what it has to. Its exit code says so to `deploy`: EX_NOPERM of sysexits.h."""

    exit_code = 77


class NoBpffs(Unsupported):
    """There is no bpffs, and none can be mounted. Its exit code says so to `deploy`: EX_CONFIG of sysexits.h."""

    exit_code = 78


class KernelLacks(Unsupported):
    """The running kernel lacks a feature that a program needs."""


class Exhausted(GadgetError):
    """A resource of the agent is used up, such as memory or slots for streams."""


class Unreachable(GadgetError):
    """No agent answers, or one went away."""


class NoCluster(Unreachable):
    """There is no kubeconfig, or nothing in it."""


class Malformed(GadgetError):
    """An agent, an API server or a recording sent something that makes no sense."""


class Incomplete(GadgetError):
    """--strict was given, and events were lost or a node failed."""

    exit_code = 3
