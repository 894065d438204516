"""A support desk: the front sorts a ticket and sends its concerns to desks in pools of their own.

    ticket ──▶ front ──agent_run──▶ billing ────┐
                 │  └──agent_run──▶ technical ──┤     the front waits for both, and holds no worker meanwhile
                 └──────────◀─────answers──◀────┘

    techrevati up examples.triage.app:fleet          python -m examples.triage.client

``TECHREVATI_DEMO_MODEL=openai:NAME`` puts a provider's model in the place of the offline one.
"""

import os
from typing import Any

from examples.triage.accounts import Accounts
from examples.triage.faults import Faults
from examples.triage.model import DeskModel
from techrevati.agent.definition import AgentDefinition, SubAgentSpec
from techrevati.agent.typed_tool import FunctionTool
from techrevati.fleet import Fleet

FRONT = """\
You are the front of a support desk. Sort what the customer writes into concerns. Send each to its agent, all at
once, in the foreground, with the account's number and the customer's own sentences. Then answer the customer with what
the agents said, a paragraph each."""
BILLING = "You answer questions about invoices. Look the account up; say which invoices are wrong, and by how much."
TECHNICAL = "You answer questions about faults. Look the symptom up; give the remedy, or say that the fault is new."


def build(model: str = "offline", *, latency: float = 0.0) -> Fleet:
    """Make the fleet; each agent is a role, so that each has a pool of workers."""
    accounts, faults = Accounts(), Faults()

    def invoices(account: str) -> list[dict[str, str]]:
        """List the invoices of an account such as A-1001, the oldest first."""
        return accounts.invoices(account)

    def known_faults(symptom: str, limit: int = 3) -> list[dict[str, Any]]:
        """Find the known faults that a symptom resembles, with their remedies."""
        return [dict(fault) for fault in faults.known(symptom, limit)]

    fleet = Fleet("triage")
    fleet.model("offline", DeskModel(latency=latency))
    desks = (
        SubAgentSpec("billing", "knows every invoice"),
        SubAgentSpec("technical", "knows every fault"),
    )
    fleet.define(AgentDefinition(id="front", model=model, instructions=FRONT, sub_agents=desks))
    fleet.define(
        AgentDefinition(id="billing", model=model, instructions=BILLING, tools=(FunctionTool(invoices, timeout=10),))
    )
    fleet.define(
        AgentDefinition(
            id="technical", model=model, instructions=TECHNICAL, tools=(FunctionTool(known_faults, timeout=10),)
        )
    )
    return fleet


fleet = build(os.environ.get("TECHREVATI_DEMO_MODEL", "offline"))
