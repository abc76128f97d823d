"""Alerts as Events of Kubernetes, on the pod that each is about."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from typing import Any

from gadget.errors import GadgetError, Unreachable
from gadget.kinds.times import rfc3339
from gadget.kube.api import ApiError, ApiServer
from gadget.rules.alerts import Alert, at_least
from gadget.rules.recent import Budget
from gadget.text import escape

#: Letters of a message (events.k8s.io has no longer ones), of a reason, and of a name before what no other one has.
LONGEST, LONGEST_REASON, LONGEST_NAME = 1024, 128, 200
#: The API server keeps events in the same store as all else. So of a pod a few at once, then one in ten seconds; and of
#: all some more, then five a second.
BURST, EACH_NS = 10, 10_000_000_000
BURST_OF_ALL, EACH_OF_ALL_NS = 100, 200_000_000
#: Pods whose uids are known.
MOST_PODS = 1024
_WARNING = at_least("Warning")
_WHO = "kubectl-gadget"


class Refused(Exception):
    """An alert is not taken, and would not be if it were sent again."""


class KubernetesEvents:
    """Makes Events. One thread calls it."""

    def __init__(self, api: ApiServer) -> None:
        """Make them by an API server."""
        self._api = api
        self._of_each, self._of_all = Budget(BURST, EACH_NS), Budget(BURST_OF_ALL, EACH_OF_ALL_NS)
        self._paid: Alert | None = None
        self._uids: OrderedDict[tuple[str, str], str] = OrderedDict()

    def send(self, alert: Alert) -> None:
        """Make the Event of an alert.

        Raises:
            Refused: It is of no pod, there were too many, or the API server does not take it.
            OSError: The API server does not answer.

        """
        namespace, pod = alert.pod
        if not pod:
            raise Refused("of no pod")
        now_ns = time.monotonic_ns()
        if alert is not self._paid and not (
            self._of_each.take(hash(alert.pod), now_ns) and self._of_all.take(0, now_ns)
        ):
            raise Refused("more than the API server is to keep")
        self._paid = alert  # when it is sent again it counts no more
        try:
            made = event(alert, self._uid(namespace, pod))
            self._api.request("POST", f"/api/v1/namespaces/{namespace}/events", made)
        except ApiError as error:
            if error.code >= 500 or error.code == 429:
                raise OSError(str(error)) from None
            if error.code != 409:  # else it is there
                raise Refused(_why(error, namespace)) from None
        except Unreachable as error:
            raise OSError(str(error)) from None
        except GadgetError as error:
            raise Refused(str(error)) from None

    def _uid(self, namespace: str, pod: str) -> str:
        """Of a pod that is there: without it `kubectl describe` shows no Event. Empty if nobody may know."""
        if (namespace, pod) not in self._uids:
            try:
                found = self._api.get(f"/api/v1/namespaces/{namespace}/pods/{pod}")
                self._uids[namespace, pod] = str((found.get("metadata") or {}).get("uid", ""))
            except ApiError:
                return ""
            if len(self._uids) > MOST_PODS:
                self._uids.popitem(last=False)
        return self._uids[namespace, pod]


def event(alert: Alert, uid: str) -> dict[str, Any]:
    """The Event of an alert, on a pod of that uid."""
    namespace, pod = alert.pod
    about = {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": pod}
    said = escape(alert.text)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": namespace, "name": f"{pod[:LONGEST_NAME]}.{alert.time_ns:x}{alert.id}"},
        "involvedObject": about | ({"uid": uid} if uid else {}),
        "type": "Warning" if alert.rule.priority in _WARNING else "Normal",
        "reason": _reason(alert.rule.name),
        "message": said if len(said) <= LONGEST else f"{said[: LONGEST - 1]}…",
        "count": alert.count,
        "firstTimestamp": rfc3339(alert.since_ns or alert.time_ns)[:19] + "Z",
        "lastTimestamp": rfc3339(alert.time_ns)[:19] + "Z",
        "source": {"component": _WHO, "host": alert.node},
        "reportingComponent": _WHO,
        "reportingInstance": alert.node,
    }


def _reason(rule: str) -> str:
    """The name of a rule as reasons are written: in one word."""
    return "".join(word[:1].upper() + word[1:] for word in re.findall(r"\w+", rule))[:LONGEST_REASON] or "Detected"


def _why(error: ApiError, namespace: str) -> str:
    if error.code == 403:
        return f"you may not create events in namespace {namespace}"
    return str(error)
