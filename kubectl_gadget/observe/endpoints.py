"""Finds Services without endpoints, to which failed flows were sent."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from gadget.endpoints import Endpoint
from gadget.errors import GadgetError
from gadget.kube.api import ApiServer

#: How long an answer holds, and how many Services are asked for in that time: each question costs the API server.
HOLDS_SECONDS, MOST_ASKED = 30.0, 64
#: How much of that time may go by in waiting for answers, as flows wait meanwhile; then nothing more is asked.
MOST_WAITED_SECONDS = 1.0


class Endpoints:
    """Asks the API server for the endpoints of a Service."""

    def __init__(self, api: ApiServer) -> None:
        """Of a cluster."""
        self._api = api
        self._missing: dict[tuple[str, str], bool] = {}
        self._until = self._waited = 0.0

    def of(self, row: Mapping[str, Any], word: Mapping[str, str]) -> tuple[bool, str]:
        """A remark on a failed flow whose Service has no endpoints; empty for other flows."""
        end, failed = row["dst"], word["type"] in ("failed", "waiting") or word["verdict"] == "no answer"
        if not failed or end is None or end.kind != "svc" or not self._has_none(end):
            return False, ""
        return False, " no endpoints"

    def _has_none(self, end: Endpoint) -> bool:
        began = time.monotonic()
        if began > self._until:
            self._missing, self._until, self._waited = {}, began + HOLDS_SECONDS, 0.0
        key = (end.namespace, end.name)
        if key not in self._missing:
            if len(self._missing) >= MOST_ASKED or self._waited > MOST_WAITED_SECONDS:
                return False
            self._missing[key] = self._ask(*key)
            self._waited += time.monotonic() - began
        return self._missing[key]

    def _ask(self, namespace: str, name: str) -> bool:
        path = f"/apis/discovery.k8s.io/v1/namespaces/{quote(namespace, safe='')}/endpointslices"
        try:
            slices = self._api.list(path, labelSelector=f"kubernetes.io/service-name={name}")
            every = [each for item in slices for each in item.get("endpoints") or ()]
            return not any((each.get("conditions") or {}).get("ready") is not False for each in every)
        except (GadgetError, AttributeError, TypeError):  # not allowed, or not as it has to be: not known
            return False
