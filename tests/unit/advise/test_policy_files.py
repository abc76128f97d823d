from __future__ import annotations

from pathlib import Path

import pytest

from gadget.errors import GadgetError, UsageError
from kubectl_gadget.advise.policy_files import parse_objects, read_policies

HEAD = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
CART = f"{HEAD}metadata: {{name: cart, namespace: shop}}\nspec: {{podSelector: {{}}}}\n"
WEB = f"{HEAD}metadata: {{name: web}}\n"
SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: cart}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("policies").mkdir()
    return Path("policies")


def names(path: Path) -> list[str]:
    found = read_policies(path, "default")
    return [f"{policy['metadata']['namespace']}/{policy['metadata']['name']}" for policy in found.policies]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_several_documents(folder: Path) -> None:
    """A file may have several policies, comments and other objects; those that I don't check are counted."""
    path = write(folder / "all.txt", f"# all\n---\n{CART}---\n---\n{SERVICE}---\n{WEB}---\n{SERVICE}")
    assert names(path) == ["shop/cart", "default/web"]
    assert read_policies(path, "default").skipped == {"Service (v1)": 2}


def test_folder(folder: Path) -> None:
    """A folder is read with all below it, except what is hidden or neither YAML nor JSON."""
    write(folder / "b.yml", WEB)
    write(folder / "a" / "cart.yaml", CART)
    write(
        folder / "c.json",
        '{"apiVersion": "networking.k8s.io/v1",\n\t"kind": "NetworkPolicy", "metadata": {"name": "c"}}',
    )
    write(folder / ".git" / "x.yaml", "}")
    write(folder / "README.md", "}")
    assert names(folder) == ["shop/cart", "default/web", "default/c"]


@pytest.mark.parametrize(
    "text",
    [
        f"apiVersion: v1\nkind: List\nitems:\n- {{apiVersion: v1, kind: Secret}}\n- {CART.replace(chr(10), chr(10) + '  ').strip()}\n",
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicyList\nitems: [{metadata: {name: cart, namespace: shop}}]\n",
        '{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "cart", "namespace": "shop"}}]}',
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: cart, namespace: shop}}",
        "\ufeff" + CART,
    ],
)  # fmt: skip
def test_lists_and_json(folder: Path, text: str) -> None:
    """What `kubectl get networkpolicies -o yaml` or `-o json` prints can be checked."""
    assert names(write(folder / "a.yaml", text)) == ["shop/cart"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{CART}---\na: b: c\n", "policies/a.yaml, document 2, line 6: mapping values are not allowed"),
        (f"{CART}---\na: 1\n", "policies/a.yaml, document 2: is no Kubernetes object: it has no kind"),
        ("- 1\n", "policies/a.yaml, document 1: is no Kubernetes object"),
        ("kind: List\nitems: [{kind: Pod}, 1]", "policies/a.yaml, document 1, item 2: is no Kubernetes object"),
        (f"{CART}---\n{CART}", "policies/a.yaml, document 2: policy shop/cart is in policies/a.yaml, document 1 too"),
        (f"{CART}  policyTypes: [x]\n", "policies/a.yaml, document 1, line 5: "),
        (f"{WEB}spec: {{policyTypes: [x]}}\n", "policies/a.yaml, document 1: policy default/web: spec.policyTypes[0]: 'x'"),
        (f"{WEB}spec: {{}}\nspec: {{}}\n", "policies/a.yaml, document 1, line 5: spec is there twice"),
        (f"{HEAD}metadata: 1\n", "policies/a.yaml, document 1: policy None: metadata.name: None is no name"),
        (f"{WEB}spec: [\n", "policies/a.yaml, document 1, line 5: "),
        ("", "policies/a.yaml: no NetworkPolicy of networking.k8s.io/v1"),
        (SERVICE, "policies/a.yaml: no NetworkPolicy of networking.k8s.io/v1, only Service (v1)"),
        ("apiVersion: crd.projectcalico.org/v1\nkind: NetworkPolicy\n", "only NetworkPolicy (crd.projectcalico.org/v1)"),
        ('{"kind": ', "policies/a.yaml, document 1, line "),
        ("a: \x01\n", "policies/a.yaml, document 1"),
    ],
)  # fmt: skip
def test_wrong_file(folder: Path, text: str, message: str) -> None:
    """What is wrong in a file is told in one line, with file, document and line."""
    with pytest.raises(UsageError) as error:
        read_policies(write(folder / "a.yaml", text), "default")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_merged_keys_are_not_twice(folder: Path) -> None:
    """YAML's anchors and merges work, also where a merged key is said anew."""
    text = f"x: &x {{name: cart, namespace: a}}\n{HEAD}metadata: {{<<: *x, namespace: shop}}\n"
    assert names(write(folder / "a.yaml", text)) == ["shop/cart"]


def test_unreadable(folder: Path) -> None:
    """A file that is not there, or no text, is named."""
    with pytest.raises(GadgetError, match=r"policies/none.yaml: No such file or directory"):
        read_policies(folder / "none.yaml", "shop")
    (folder / "bin.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(GadgetError, match=r"policies/bin.yaml: is no text in UTF-8"):
        read_policies(folder, "shop")


def test_objects_of_a_stream() -> None:
    """Objects that come from a pipe are named by the place where they stand."""
    assert [where for where, _ in parse_objects(f"{CART}---\n{SERVICE}", "stdin")] == [
        "stdin, document 1",
        "stdin, document 2",
    ]
