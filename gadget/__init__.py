"""What the command line and the agent have in common.

It knows nothing of the kernel, and of Kubernetes only the API client.
"""

from gadget.later import leave_unused as _leave_unused

__version__ = "0.1.0"

#: The wire contract: grows when an agent and a command line of different numbers cannot understand each other.
CONTRACT = 1

_leave_unused()  # before anything imports gRPC, protobuf or numpy
