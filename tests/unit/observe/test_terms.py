"""observe FILTER: what its terms choose. terms.json is read by the test of map's page as well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gadget.errors import GadgetError, UsageError
from gadget.kube.api import ApiError
from gadget.selector import parse_labels
from kubectl_gadget.observe.choosing import Find
from kubectl_gadget.observe.members import of_pods
from kubectl_gadget.observe.opinion import ALLOWED, DENIED, NOT_JUDGED, PERHAPS, Opinion
from kubectl_gadget.observe.policies import policies_of
from kubectl_gadget.observe.terms import read
from tests.conftest import run_cli
from tests.unit.observe.test_choosing import GADGET, chosen
from tests.unit.observe.test_policies import POLICY, observed
from tests.unit.test_completion import offered
from tests.unit.test_several import write_config

TERMS: dict[str, list[dict[str, Any]]] = json.loads(Path(__file__).with_name("terms.json").read_text())


#: Of the pods of tests, by namespace and name.
LABELS = {
    ("shop", "cart-0"): {"app": "cart"},
    ("front", "web-0"): {"app": "web", "replicas": "3"},
    ("data", "db-0"): {"example.org/tier": "data"},
}
WEB, CART = (("front", "web"),), (("shop", "cart"),)
#: What policies say of each flow of tests; of two ends of which one alone may tell.
OPINIONS = {
    "cart asks web": Opinion(ALLOWED, "", (), WEB), "web answers cart": Opinion(ALLOWED, "", (), WEB),
    "db asks web6": Opinion(DENIED, "", (), WEB), "db asks world": Opinion(NOT_JUDGED),
    "db asks service": Opinion(PERHAPS, "", CART, ()),
}  # fmt: skip


def find(kind: str) -> Find:
    """A cluster of these pods."""
    assert kind == "label"

    def pods(option: str, value: str) -> str:
        wanted = parse_labels(value)
        return of_pods({pod for pod, own in LABELS.items() if all(each.matches(own) for each in wanted)})

    return pods


@pytest.mark.parametrize("case", TERMS["cases"], ids=lambda case: case["filter"])
def test_terms(case: dict[str, Any]) -> None:
    """A filter of terms chooses by ends, names, ports, domains and verdicts, with from:, to: and !."""
    assert chosen(read(case["filter"], GADGET, find).conditions) == {*case["chosen"]}


@pytest.mark.parametrize("case", TERMS["policies"], ids=lambda case: case["filter"])
def test_policies(case: dict[str, Any]) -> None:
    """policy= chooses by what policies say of a flow, or by the policy that says it."""
    tests = read(case["filter"], GADGET, find).decisions
    assert {name for name, said in OPINIONS.items() if all(test(said) for test in tests)} == {*case["chosen"]}


@pytest.mark.parametrize("case", TERMS["wrong"], ids=lambda case: case["filter"])
def test_wrong(case: dict[str, Any]) -> None:
    """A term that makes no sense is told in a line that says where it is, and what would make some."""
    with pytest.raises(UsageError) as wrong:
        read(case["filter"], GADGET, find)
    assert str(wrong.value).startswith(f"filter: at {case['at']!r}: {case['error']}")


def test_wrong_line() -> None:
    """A filter with a mistake ends the command at once, with one line."""
    done = run_cli("observe", "--agent", "unix:///none", "from:pod=web,verdict=refusd")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: filter: at 'verdict=refusd': did you mean refused?\n"


@pytest.mark.parametrize(
    ("port", "options", "shown"),
    [
        (8080, ["--decided-by", "web"], 2), (8080, ["--decided-by", "front/"], 2), (8080, ["--decided-by", "!web"], 3),
        (8080, ["--not", "--decided-by", "we*"], 3), (8080, ["--decided-by", "shop/web"], 0), (8080, ["policy=allowed"], 2),
        (8080, ["policy=denied"], 0), (9090, ["policy=denied", "--to-port", "8080"], 2), (9090, ["--decided-by", "web"], 2),
        (9090, ["--decided-by", "web", "--max-events", "1"], 1), (9090, ["--decided-by", "web", "--count-by", "src.name"], 2),
    ],
)  # fmt: skip
def test_decided_by(tmp_path: Path, port: int, options: list[str], shown: int) -> None:
    """--decided-by shows those flows alone that a policy allows, or would deny; all other options go with it."""
    often = ("-o", "json") if "--count-by" in options else ()
    out, said = observed(tmp_path, POLICY.replace("PORT", str(port)), *options, *often)
    lines = out.splitlines()
    if "--count-by" in options:
        assert sum(json.loads(line)["count"] for line in lines) == shown
    else:
        assert len(lines) == shown
        denied = f"The policies would deny {shown if port == 9090 else 0} of "
        assert denied in said


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["--decided-by", "web"], "--decided-by: policies are a cluster's: with --local and --agent want --policy FILE"),
        (["--decided-by", 'a"b'], "--decided-by 'a\"b': want NAME, NAMESPACE/NAME or NAMESPACE/"),
        (["--from-dns", "a.example"], "--from-dns: names are known of the end that was asked: want --to-dns, --from-pod or --from-ip"),
        (["--in-cluster", "east"], "--in-cluster: one cluster alone is asked: name several by --context A,B"),
        (["--ip-version", "5"], "--ip-version '5': want 4 or 6"),
        (["label=app=cart"], "filter: at 'label=app=cart': who these are a cluster tells: with --agent name pods"),
    ],
)  # fmt: skip
def test_cannot(args: list[str], error: str) -> None:
    """What cannot be told of flows is refused in a line that says what can."""
    done = run_cli("observe", "--agent", "unix:///none", *args)
    assert (done.returncode, done.stderr) == (2, f"error: {error}\n")


@pytest.mark.parametrize(
    ("incomplete", "wanted"),
    [
        ("fr", ["from:"]),
        ("from:n", ["from:namespace="]),
        ("pod=web,!ver", ["pod=web,!verdict="]),
        ("from:ver", []),
        ("verdict=no", ["verdict=no-answer"]),
        ("policy=al", ["policy=allowed"]),
        ("dns=", []),
        ("port=8", []),
    ],
)
def test_completion(incomplete: str, wanted: list[str]) -> None:
    """Tab completes the last term of a filter: its key, and the words of a value."""
    assert offered("observe", incomplete) == wanted


class Api:
    """An API server whose user may list policies of the whole cluster, or in namespaces alone."""

    def __init__(self, *, everywhere: bool) -> None:
        self.everywhere = everywhere

    def list(self, path: str, **query: str) -> list[str]:
        if "/namespaces/" not in path and not self.everywhere:
            raise ApiError(403, "no")
        return [path]


def test_policies_of_the_cluster() -> None:
    """--decided-by goes by the policies of the cluster, or of the namespaces that I may see."""
    path = "/apis/networking.k8s.io/v1"
    assert policies_of(Api(everywhere=True), ["shop"]) == [f"{path}/networkpolicies"]  # type: ignore[arg-type]
    found = policies_of(Api(everywhere=False), ["shop", "front"])  # type: ignore[arg-type]
    assert found == [f"{path}/namespaces/{name}/networkpolicies" for name in ("shop", "front")]
    with pytest.raises(GadgetError, match="the API server: no"):
        policies_of(Api(everywhere=False), [])  # type: ignore[arg-type]


def test_one_cluster(tmp_path: Path) -> None:
    """Where one cluster alone is asked, choosing by clusters is refused in a line that says how to ask several."""
    config = write_config(tmp_path / "config", {"east": "https://127.0.0.1:1"})
    done = run_cli("observe", "-A", "--kubeconfig", str(config), "--to-cluster", "east")
    assert done.stderr == "error: --to-cluster: one cluster alone is asked: name several by --context A,B\n"
    assert done.returncode == 2
