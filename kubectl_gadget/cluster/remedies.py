"""What deploy tries in clusters that refuse the agents as they are at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gadget.errors import NoBpffs, NoRights
from kubectl_gadget.cluster.agents import AgentPod
from kubectl_gadget.cluster.manifests import CRITICAL, Settings

#: Events that say why pods are not made, oldest first: the message of each, by its version.
Refusals = dict[str, str]
#: What quota admission says of a priority class that only namespaces with a quota for it may use
#: (k8s.io/apiserver, plugin/resourcequota/controller.go).
_NO_QUOTA = "insufficient quota to match these scopes"


def lacks(agent: AgentPod) -> bool:
    """Whether an agent has ended because it may not do what it has to."""
    return agent.exit_code in (NoRights.exit_code, NoBpffs.exit_code)


@dataclass(frozen=True)
class Remedies:
    """The remedies that are left to try. A setting that the user gave is never changed."""

    rights: bool = False
    seccomp: bool = False
    priority: bool = False

    def less_than_rights(self, settings: Settings) -> bool:
        """Whether an agent that lacks rights could be given more."""
        return settings.least_privilege and (self.rights or (self.seccomp and settings.seccomp != "Unconfined"))

    def find(self, settings: Settings, agents: Sequence[AgentPod], refusal: str) -> tuple[Settings, str] | None:
        """Other settings that may do, and in words why; None if there are none."""
        if self.priority and _NO_QUOTA in refusal and settings.priority_class == CRITICAL:
            if not settings.critical_quota:
                why = f"this cluster wants a quota for {CRITICAL}: making one, ResourceQuota gadget-critical-pods"
                return replace(settings, critical_quota=True), why
            return self.without_priority(settings)
        lacking = [agent.node for agent in agents if lacks(agent)]
        if not lacking or not settings.least_privilege:
            return None
        no_bpffs = [agent.node for agent in agents if agent.exit_code == NoBpffs.exit_code]
        if self.rights and no_bpffs:
            why = f"{no_bpffs[0]} has no bpffs, which recorders need: going on with privileged agents, which mount it"
            return replace(settings, least_privilege=False), why
        if self.seccomp and settings.seccomp == "RuntimeDefault":
            why = (
                f"the runtime's seccomp profile does not let agents load BPF programs ({lacking[0]}): going on without"
            )
            return replace(settings, seccomp="Unconfined"), why
        if self.rights:
            why = f"least privilege does not suffice here ({lacking[0]}): going on with privileged agents"
            return replace(settings, least_privilege=False), why
        return None

    def without_priority(self, settings: Settings) -> tuple[Settings, str]:
        """Settings that are critical for nobody, and in words why."""
        why = f"agents cannot be {CRITICAL} in this cluster: going on without; agents may be evicted"
        return replace(settings, priority_class="none", critical_quota=False), why
