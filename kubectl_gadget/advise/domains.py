"""Names of addresses outside the cluster, for which pods got them as answers of DNS.

What a container asks for is its own choice, and so is what a server answers that it asks: a name says whose an address
is as little as the connection itself.
"""

from __future__ import annotations

import re
from functools import lru_cache

#: What both Cilium and Calico take for the name of a server.
_DOMAIN = re.compile(
    r"(?=.{1,253}$)(?:[a-z0-9_](?:[-a-z0-9_]{0,61}[a-z0-9_])?\.)+[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?", re.ASCII
)
#: Names of one address that one flow tells.
MOST = 8


@lru_cache(65_536)
def is_domain(name: str) -> bool:
    """Whether a text is a name, in lower case, of more than one label."""
    return bool(_DOMAIN.fullmatch(name))
