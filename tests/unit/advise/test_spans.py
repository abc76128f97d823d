"""How much of the time was seen, where agents began later than others."""

from __future__ import annotations

from kubectl_gadget.advise.advisor import advise
from kubectl_gadget.advise.evaluate import Evaluator
from kubectl_gadget.advise.flows import NodeAddresses
from kubectl_gadget.advise.judge import spans
from kubectl_gadget.advise.observation import Observation
from kubectl_gadget.advise.talks import Settings
from tests.unit.advise.build import BEGAN, SECOND, UNTIL, Build


def young() -> Build:
    """A cluster whose node-b has an agent for two minutes, and node-a for an hour."""
    build = Build()
    for node, began in (("node-a", BEGAN + 60 * SECOND), ("node-b", UNTIL - 120 * SECOND)):
        build.node(node)
        build.context.nodes.append(NodeAddresses(node, (), began))
    web = build.pod("shop", "web", "node-a", {"app": "web"})
    cart = build.pod("shop", "cart", "node-b", {"app": "cart"})
    build.talk(web, cart, 8080)
    return build


def test_young_agent() -> None:
    """A node that was recorded for minutes is told of, where the first line speaks of an hour."""
    build = young()
    advice = advise(Observation(build.context, build.flows))
    assert advice.summary.startswith("from 1h00m of traffic on 2 nodes")
    told = "node-b was recorded for 2m00s only: what its pods did before is missing"
    assert [each.text for each in advice.warnings] == [told]
    assert not advise(Observation(build.context, build.flows), Settings(since=UNTIL - 60 * SECOND)).warnings[1:]
    assert not advise(Observation(build.context, build.flows), Settings(selector="app=web")).warnings


def test_unused_for_how_long() -> None:
    """A rule is unused for as long as all the pods of its policy were seen, not for longer."""
    build = young()
    observation = Observation(build.context, build.flows)
    policies = [
        {"metadata": {"namespace": "shop", "name": name}, "spec": {"podSelector": selector}}
        for name, selector in (
            ("all", {}),
            ("web", {"matchLabels": {"app": "web"}}),
            ("none", {"matchLabels": {"x": "y"}}),
        )
    ]
    found = spans(Evaluator(policies, {}).policies, observation, Settings())
    assert {name: span // SECOND for (_, name), span in found.items()} == {"all": 120, "web": 3540, "none": 3600}
