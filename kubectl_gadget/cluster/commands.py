"""Commands that change a cluster: deploy and undeploy."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from gadget import __version__
from gadget.errors import UsageError
from gadget.runtimes import parse_state
from gadget.selector import parse_recorded
from kubectl_gadget.cluster.options import chosen_cluster, cluster_options
from kubectl_gadget.headed import HeadedCommand
from kubectl_gadget.options import DurationType, Option
from kubectl_gadget.tell import tell, write_lines

#: Of a ConfigMap, which has 1 MiB with all else that is in it.
MOST_RULE_BYTES = 1000 << 10
_DEFAULT = "default"
LOG_LEVELS = ("debug", "info", "warning", "error")
TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
PULL_POLICIES = ("IfNotPresent", "Always", "Never")


#: Said before anything is made, as a pod that cannot pull would only say it a minute later.
_NO_IMAGE = (
    "--image is missing: no image is published. Build one from the repository and push it where your nodes can pull: "
    f"docker build -t REGISTRY/kubectl-gadget:{__version__} . && docker push REGISTRY/kubectl-gadget:{__version__}; "
    f"then kubectl gadget deploy --image REGISTRY/kubectl-gadget:{__version__}"
)

#: Said of what is printed with a receiver of audit events.
_NOT_WRITTEN = (
    "is not written, as the receiver has no address yet; each time the Secret has other keys. "
    "`deploy` without --print-only writes it, and leaves keys that the cluster has"
)


def _seccomp(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if value not in ("", "RuntimeDefault", "Unconfined") and not value.startswith("localhost/"):
        raise UsageError(f"--seccomp {value}: it is RuntimeDefault, Unconfined or localhost/PATH")
    return value


def _sets(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    for text in value:
        if not re.fullmatch(r"[a-z0-9-]+\.[a-z0-9-]+=.*", text, re.DOTALL):  # which there are agents know
            raise UsageError(f"--set {text}: want SECTION.KEY=VALUE")
    return value


class DeployCommand(HeadedCommand):
    """`deploy`: agents in a cluster."""

    def __init__(self) -> None:
        """Make the command."""
        params: list[click.Parameter] = [
            Option(["--image"], heading="Options", default="", metavar="IMAGE",
                   help="Image of the agent, which you have built and pushed. Required."),
            Option(["--image-pull-policy"], heading="Options", type=click.Choice(PULL_POLICIES),
                   default="IfNotPresent", help="When nodes pull it. [default: IfNotPresent]"),
            Option(["--image-pull-secret"], heading="Options", default="", metavar="NAME", help="Secret to pull it."),
            Option(["--node-selector"], heading="Options", default="", metavar="K=V,…", help="Only nodes so labelled."),
            Option(["--least-privilege"], heading="Options", is_flag=True,
                   help="Only the capabilities that are needed. [default: if it suffices]"),
            Option(["--privileged"], heading="Options", is_flag=True, help="All rights. [default: if need be]"),
            Option(["--seccomp"], heading="Options", metavar="RuntimeDefault|Unconfined|localhost/PATH", default="",
                   callback=_seccomp, help="What they may call. [default: RuntimeDefault, if it suffices]"),
            Option(["--priority-class"], heading="Options", metavar="NAME|none", default="",
                   help="Priority of agents. [default: system-node-critical, if the cluster allows it]"),
            Option(["--traceloop"], heading="Options", default="all", metavar="all|off|NAMESPACE,…",
                   help="Whose last system calls are recorded. [default: all]"),
            Option(["--redact"], heading="Options", multiple=True, metavar="REGEX",
                   help="What agents mask in the text of recorded calls. Repeatable."),
            Option(["--traceloop-memory"], heading="Options", type=click.IntRange(1), metavar="MIB",
                   help="Memory for those recordings on each node. [default: 128]"),
            Option(["--no-flows"], heading="Options", is_flag=True,
                   help="Do not record who talks to whom: no `advise network-policy`."),
            Option(["--no-syscalls"], heading="Options", is_flag=True,
                   help="Do not record which system calls are made: no `advise seccomp-profile`."),
            Option(["--detect"], heading="Options", multiple=True, metavar="default|DIR",
                   help="Rules that always judge: those that come with it, and .yaml files of a folder; see alerts."),
            Option(["--k8s-audit", "audit"], heading="Options", type=click.Path(file_okay=False, path_type=Path),
                   metavar="DIR", help="Judge audit events of Kubernetes, too; what the API server needs to send them "
                   "is written there."),
            Option(["--hubble"], heading="Options", is_flag=True,
                   help="Serve Hubble's API in the cluster, for its page and shared use, to who has the keys."),
            Option(["--metrics"], heading="Options", is_flag=True,
                   help="Serve numbers for Prometheus to the pod network, without names of processes or addresses."),
            Option(["--set", "sets"], heading="Options", multiple=True, metavar="SECTION.KEY=VALUE",
                   callback=_sets, help="Any other setting of agents: docs/agent.md. Repeatable."),
            Option(["--runtime-state"], heading="Options", multiple=True, metavar="[RUNTIME=]PATH",
                   help="Where a runtime keeps its state, if not where it is usual. Repeatable."),
            Option(["--toleration"], heading="Options", multiple=True, metavar="KEY[=VALUE][:EFFECT]",
                   help="Only nodes with these taints, or none. [default: any taint] Repeatable."),
            Option(["--log-level"], heading="Options", type=click.Choice(LOG_LEVELS), default="info",
                   help="What agents log. [default: info]"),
            Option(["--print-only"], heading="Options", is_flag=True, help="Print the manifests, and change nothing."),
            Option(["--timeout"], heading="Options", type=DurationType(), default=120.0,
                   help="How long to wait for the nodes. [default: 2m]"),
        ]  # fmt: skip
        super().__init__(
            "deploy",
            "an agent on every node of the cluster; see undeploy",
            "kubectl gadget deploy --image registry.example/kubectl-gadget:" + __version__,
            [*params, *cluster_options(nodes=False, several=False)],
            self._run,
            verb="Starts",
        )

    def _run(
        self,
        image: str,
        print_only: bool,
        timeout: float,
        node_selector: str,
        toleration: tuple[str, ...],
        runtime_state: tuple[str, ...],
        least_privilege: bool,
        privileged: bool,
        seccomp: str,
        priority_class: str,
        detect: tuple[str, ...],
        audit: Path | None,
        hubble: bool,
        **settings: Any,
    ) -> None:
        from kubectl_gadget.cluster import deploy, manifests
        from kubectl_gadget.cluster.remedies import Remedies

        if not image and not print_only:
            raise UsageError(_NO_IMAGE)
        if privileged and (least_privilege or seccomp):
            raise UsageError(f"--privileged and {'--least-privilege' if least_privilege else '--seccomp'}: one of them")
        parse_recorded(settings["traceloop"])  # agents that refuse it would be waited for in vain
        cluster = chosen_cluster()
        labels = dict(_label(part) for part in node_selector.split(",") if part)
        tolerations = tuple(map(_toleration, toleration))
        may = Remedies(rights=not (least_privilege or seccomp), seccomp=not seccomp, priority=not priority_class)
        chosen = manifests.Settings(
            image or f"kubectl-gadget:{__version__}",
            namespace=cluster.namespace,
            node_selector=labels,
            tolerations=tolerations,
            states=tuple(map(parse_state, runtime_state)),
            least_privilege=not privileged,
            expect_bpffs=may.rights and not print_only,
            seccomp=seccomp or "RuntimeDefault",
            priority_class=priority_class or manifests.CRITICAL,
            default_rules=_DEFAULT in detect,
            rules=_rules(detect),
            **settings,
        )
        if print_only:
            if audit:
                from kubectl_gadget.cluster.audit import make_keys

                chosen = replace(chosen, audit=make_keys(cluster.namespace))
                tell(f"{audit} {_NOT_WRITTEN}")
            if hubble:
                from kubectl_gadget.cluster.hubble import make_keys as make_both

                chosen = replace(chosen, hubble=make_both(cluster.namespace))
            write_lines(manifests.to_yaml(manifests.render(chosen)))
        else:
            deploy.deploy(cluster, chosen, timeout, may, audit, hubble)


class UndeployCommand(HeadedCommand):
    """`undeploy`: no agents in a cluster."""

    in_overview = False  # `deploy` tells of it

    def __init__(self) -> None:
        """Make the command."""
        wait = Option(["--timeout"], heading="Options", type=DurationType(), default=60.0,
                      help="How long to wait until all is gone. [default: 1m]")  # fmt: skip
        super().__init__(
            "undeploy",
            "the agents, and all else that deploy made",
            "kubectl gadget undeploy",
            [wait, *cluster_options(nodes=False, several=False)],
            self._run,
            verb="Removes",
        )

    def _run(self, timeout: float) -> None:
        from kubectl_gadget.cluster.undeploy import undeploy

        undeploy(chosen_cluster(), timeout)


def _rules(places: tuple[str, ...]) -> dict[str, str]:
    """The rule files of a folder by name, which make sense behind the default ones if these are named too.

    Raises:
        UsageError: They make none, or a ConfigMap cannot have them.

    """
    folders = [Path(place) for place in places if place != _DEFAULT]
    if not folders:
        return {}
    if len(folders) > 1 or not folders[0].is_dir():
        raise UsageError(f"--detect {folders[-1]}: want {_DEFAULT}, and one folder with .yaml files")
    from gadget.rules import default, ruleset

    paths = sorted(path for path in folders[0].iterdir() if path.suffix in (".yaml", ".yml"))
    try:
        found = {path.name: path.read_text() for path in paths}
    except UnicodeDecodeError as error:
        raise UsageError(f"--detect {folders[0]}: a file is no text: {error}") from None
    if not found:
        raise UsageError(f"--detect {folders[0]}: has no .yaml file in it")
    if sum(len(text.encode()) for text in found.values()) > MOST_RULE_BYTES:
        raise UsageError(f"--detect {folders[0]}: a ConfigMap has {MOST_RULE_BYTES >> 10} KiB at most")
    if odd := next((name for name in found if not re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", name)), ""):
        raise UsageError(f"--detect {folders[0]}: no file of a ConfigMap can be called {odd!r}")
    ruleset.load([*(default.files() if _DEFAULT in places else ()), *found.items()])
    return found


def _toleration(text: str) -> dict[str, str]:
    """One of a pod's tolerations, written as kubectl writes a taint."""
    rest, _, effect = text.partition(":")
    key, equals, value = rest.partition("=")
    if not key or effect not in ("", *TAINT_EFFECTS):
        raise UsageError(f"--toleration {text}: want KEY[=VALUE][:EFFECT], EFFECT one of {', '.join(TAINT_EFFECTS)}")
    wanted = {"key": key, "operator": "Equal", "value": value} if equals else {"key": key, "operator": "Exists"}
    return {**wanted, "effect": effect} if effect else wanted


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--node-selector {text}: want NAME=VALUE")
    return name, value
