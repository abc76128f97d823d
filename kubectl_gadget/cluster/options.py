"""Options of a cluster: kubectl's own connection flags, and which of its agents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gadget.deadline import set_deadline
from gadget.errors import UsageError
from gadget.selector import parse_names
from gadget.values import dataclass
from kubectl_gadget.completion import CLUSTER, complete_contexts, complete_nodes
from kubectl_gadget.options import DurationType, Option

if TYPE_CHECKING:
    from gadget.kube.kubeconfig import ClusterFlags

NAMESPACE = "gadget"
#: What the receiver of audit events, and Hubble's API, have in place of a node's name, and as their component.
RECEIVER, HUBBLE = "k8s-audit", "hubble"
SERVERS = (RECEIVER, HUBBLE)
_HEADING = "Cluster"
#: Flags of `kubectl options` that say nothing to us. People have them in scripts and aliases all the same.
_IGNORED = ("cache-dir", "kuberc", "log-flush-frequency", "profile", "profile-output", "vmodule")
_IGNORED_SWITCHES = ("disable-compression", "match-server-version", "warnings-as-errors")


@dataclass(frozen=True)
class ClusterOptions:
    """What the options say: how to connect, the agents' namespace, and the nodes that are wanted (all if none).

    context is what it is called among several, empty if it is the only one.
    """

    flags: ClusterFlags
    namespace: str
    nodes: tuple[str, ...]
    context: str = ""


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    ctx.meta.setdefault(CLUSTER, {})[param.name] = value


def _option(*names: str, **settings: Any) -> Option:
    # commands never see these values: chosen_cluster has them
    return Option([*names], heading=_HEADING, expose_value=False, callback=_keep, **settings)


def cluster_options(*, nodes: bool = True, several: bool = True) -> list[click.Parameter]:
    """Which cluster, and which of its nodes. Those that are seldom needed are hidden: kubectl's help has them.

    several: the command takes several clusters.
    """
    one = "Context of the kubeconfig"

    def hidden(*names: str, **settings: Any) -> Option:
        return _option(*names, hidden=True, **{"default": "", **settings})

    def ignored(*names: str, **settings: Any) -> Option:
        return Option([*names], heading=_HEADING, hidden=True, expose_value=False, **settings)

    return [
        *([_option("--node", multiple=True, metavar="A,B", help="Nodes. [default: all]",
                   shell_complete=complete_nodes)] if nodes else []),
        _option("--context", default="", metavar="A,B" if several else "NAME", shell_complete=complete_contexts,
                help=f"{one}{', or several' if several else ''}. kubectl's other connection flags work too."),
        _option("--kubeconfig", default="", metavar="FILE", help="Kubeconfig. [default: KUBECONFIG, ~/.kube/config]"),
        _option("--gadget-namespace", default=NAMESPACE, metavar="NAME", help="Where agents are. [default: gadget]"),
        *([Option(["--wait"], heading=_HEADING, type=DurationType(), default=0.0, expose_value=False,
                  callback=lambda ctx, param, value: set_deadline(value),
                  help="Wait no longer than this for the API server and nodes, such as 10s.")] if nodes else []),
        hidden("--cluster"),
        hidden("--user"),
        hidden("-s", "--server"),
        hidden("--token"),
        hidden("--username"),
        hidden("--password"),
        hidden("--certificate-authority"),
        hidden("--client-certificate"),
        hidden("--client-key"),
        hidden("--tls-server-name"),
        hidden("--insecure-skip-tls-verify", is_flag=True, default=False),
        hidden("as_", "--as"),
        hidden("--as-uid"),
        hidden("--as-group", multiple=True, default=()),
        hidden("--as-user-extra", multiple=True, default=()),
        hidden("--request-timeout", type=DurationType(), default=0.0),
        ignored("-v", "--v"),
        *(ignored(f"--{name}") for name in _IGNORED),
        *(ignored(f"--{name}", is_flag=True) for name in _IGNORED_SWITCHES),
    ]  # fmt: skip


def chosen_cluster() -> ClusterOptions:
    """What the options of the running command say. UsageError if they name several clusters."""
    clusters = chosen_clusters()
    if len(clusters) > 1:
        names = ",".join(cluster.context for cluster in clusters)
        raise UsageError(f"--context {names}: one at a time here; streams take several")
    return clusters[0]


def chosen_clusters() -> list[ClusterOptions]:
    """The same of each cluster that --context names."""
    from gadget.kube.kubeconfig import ClusterFlags

    values = dict(click.get_current_context().meta.get(CLUSTER, {}))
    parse_names(values.get("node", ()))
    nodes, namespace = values.pop("node", ()), values.pop("gadget_namespace", NAMESPACE)
    contexts = list(dict.fromkeys(filter(None, values.pop("context", "").split(",")))) or [""]
    several = len(contexts) > 1
    return [
        ClusterOptions(ClusterFlags(**values, context=each), namespace, nodes, each if several else "")
        for each in contexts
    ]
