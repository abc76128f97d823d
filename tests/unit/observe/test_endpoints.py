"""observe: Services without endpoints."""

from __future__ import annotations

from typing import Any

import pytest

from gadget.endpoints import Endpoint
from gadget.kube.api import ApiError
from kubectl_gadget.observe.endpoints import MOST_ASKED, Endpoints
from kubectl_gadget.observe.lines import FIELDS, FlowLines
from kubectl_gadget.output import all_fields
from tests.unit.observe.flows import GADGET
from tests.unit.observe.test_pairs import CART, SERVICE, WEB, row

READY, NOT_READY = {"conditions": {"ready": True}}, {"conditions": {"ready": False}}


class Api:
    """An API server that knows one Service's endpoints."""

    def __init__(self, *slices: Any, code: int = 0) -> None:
        self.slices, self.code, self.asked = list(slices), code, 0
        self.now, self.takes = 100.0, 0.0

    def list(self, path: str, **query: str) -> Any:
        self.asked += 1
        self.now += self.takes
        assert path == "/apis/discovery.k8s.io/v1/namespaces/front/endpointslices"
        assert query["labelSelector"].startswith("kubernetes.io/service-name=web")
        if self.code:
            raise ApiError(self.code, "no")
        return self.slices


def line(api: Api, capsysbinary: Any, dst: Endpoint = SERVICE, **values: Any) -> str:
    output = FlowLines(GADGET, all_fields(GADGET.schema))
    output.remarks = [Endpoints(api).of]  # type: ignore[arg-type]
    given = {"type": "failed", "verdict": "rejected", "reason": "none", "drop": "NETFILTER_DROP", **values}
    output.write([row(1.0, CART, dst, **given)[1]])
    return str(capsysbinary.readouterr().out.decode().strip())


@pytest.mark.parametrize("slices", [[], [{"endpoints": None}], [{"endpoints": [NOT_READY]}, {"endpoints": []}]])
def test_none(capsysbinary, slices: list[Any]) -> None:
    """A flow to a Service that nobody is behind, or nobody who is ready, says "no endpoints"."""
    said = line(Api(*slices), capsysbinary)
    assert said.endswith(" → svc/front/web:80 TCP REJECTED NETFILTER_DROP no endpoints")


@pytest.mark.parametrize(
    ("api", "dst", "values"),
    [
        (Api({"endpoints": [NOT_READY, READY]}), SERVICE, {}),
        (Api({"endpoints": [{}]}), SERVICE, {}),
        (Api(code=403), SERVICE, {}),
        (Api({"endpoints": ["x"]}), SERVICE, {}),
        (Api(), WEB, {}),
        (Api(), SERVICE, {"type": "ended", "verdict": "forwarded"}),
    ],
)
def test_others(capsysbinary, api: Api, dst: Endpoint, values: dict[str, Any]) -> None:
    """Nothing is said if somebody is ready, if I may not know, of a pod, and of what was forwarded."""
    assert "no endpoints" not in line(api, capsysbinary, dst, **values)


def test_asked_once() -> None:
    """The API server is asked once for each Service, and of very many Services not for all."""
    api = Api()
    told = Endpoints(api)  # type: ignore[arg-type]
    for at in range(2 * MOST_ASKED):
        values = dict(zip(FIELDS, row(1.0, CART, SERVICE._replace(name=f"web{at}"))[1], strict=True))
        for _ in range(3):
            told.of(values, {"type": "failed", "verdict": "rejected"})
    assert api.asked == MOST_ASKED


def test_slow_api_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flows do not wait for a slow API server for longer than about a second in thirty."""
    api = Api()
    api.takes = 0.3
    monkeypatch.setattr("time.monotonic", lambda: api.now)
    told = Endpoints(api)  # type: ignore[arg-type]
    for at in range(20):
        values = dict(zip(FIELDS, row(1.0, CART, SERVICE._replace(name=f"web{at}"))[1], strict=True))
        told.of(values, {"type": "failed", "verdict": "rejected"})
    assert api.asked == 4
    api.now += 31
    told.of(values, {"type": "failed", "verdict": "rejected"})
    assert api.asked == 5
