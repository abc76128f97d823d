"""The containers of the corpus."""

from tests.why.cases import benign, c, go, hanging, incidents, java, node, python, shell

CASES = [
    *shell.CASES,
    *c.CASES,
    *go.CASES,
    *python.CASES,
    *node.CASES,
    *java.CASES,
    *hanging.CASES,
    *benign.CASES,
    *incidents.CASES,
]
assert len({case.name for case in CASES}) == len(CASES)
