from __future__ import annotations

import pytest

from gadget.workload import name_by_pod, workload


@pytest.mark.parametrize(
    ("pod", "owner", "revision", "wanted"),
    [
        ("web-6c9f-x2x4z", "ReplicaSet/web-6c9f", "6c9f", "Deployment/web"),
        ("web-v2-x2x4z", "ReplicaSet/web-v2", "", "ReplicaSet/web-v2"),
        ("db-0", "StatefulSet/db", "", "StatefulSet/db"),
        ("tidy-28391040-x2x4z", "Job/tidy-28391040", "", "CronJob/tidy"),
        ("once-x2x4z", "Job/once", "", "Job/once"),
        ("web-6c9f7d8b9c-x2x4z", "", "", "Deployment/web"),
        ("etcd-n1", "Node/n1", "", "Pod/etcd-n1"),
        ("db-0", "", "", "Pod/db-0"),
        ("", "", "", ""),
    ],
)
def test_workload(pod: str, owner: str, revision: str, wanted: str) -> None:
    """Pods of one workload have one baseline, whatever their names end with."""
    assert workload(pod, owner, revision) == wanted


@pytest.mark.parametrize(
    ("pod", "wanted"),
    [
        ("web-6c9f7d8b9c-x2x4z", "web"),
        ("proxy-x2x4z", "proxy"),
        ("tidy-28391040-x2x4z", "tidy"),
        ("db-12", "db"),
        ("plain", "plain"),
        ("my-redis", "my-redis"),
        ("-0", "-0"),
        ("", ""),
    ],
)
def test_name_by_pod(pod: str, wanted: str) -> None:
    """Boxes of the map and Hubble's identities are those of workloads, also where nobody says whose a pod is."""
    assert name_by_pod(pod) == wanted
