"""The offline model of all three desks; which one it speaks for, the offered tools say.

agent_run    front: sort the ticket's sentences, send each concern to its desk, put the answers together
invoices     billing: look the account up, say what is odd
known_faults technical: look the symptom up, give the remedy
"""

import asyncio

from examples.conversation import Conversation, Done, asks, read, says
from examples.offline_model import Sleep
from examples.triage.accounts import account_in, oddities
from examples.triage.sorting import Sorter, learned
from techrevati.fleet.models import ModelReply, ModelRequest
from techrevati.runtime.errors import TechrevatiError

Call = tuple[str, dict[str, object]]
NO_CONCERN = "Thank you for writing. We found no question about an invoice or a fault in it; please tell us more."


class NoDesk(TechrevatiError):
    """The offered tools are those of no desk."""

    def __init__(self, offered: tuple[str, ...]) -> None:
        super().__init__(offered)
        self.offered = offered

    def __str__(self) -> str:
        return (
            f"the offline model knows no desk with the tools {', '.join(self.offered) or 'none'}; "
            "fix: offer agent_run, invoices or known_faults"
        )


class DeskModel:
    """A chat model on this machine; `latency` is what one call takes (s)."""

    def __init__(self, *, latency: float = 0.0, sleep: Sleep = asyncio.sleep) -> None:
        self._latency, self._sleep, self._sorter = latency, sleep, learned()

    async def complete(self, request: ModelRequest) -> ModelReply:
        """Take the next step of the desk whose tools are offered.

        Raises:
            NoDesk.
        """
        if self._latency > 0.0:
            await self._sleep(self._latency)
        step = next_step(read(request), self._sorter)
        return await says(request, step) if isinstance(step, str) else asks(request, step)


def next_step(chat: Conversation, sorter: Sorter) -> str | list[Call]:
    """Decide what comes next: calls (name, arguments), or the words to end with.

    Raises:
        NoDesk.
    """
    if "agent_run" in chat.offered:
        return front(chat, sorter)
    if "invoices" in chat.offered:
        return billing(chat)
    if "known_faults" in chat.offered:
        return technical(chat)
    raise NoDesk(tuple(sorted(chat.offered)))


def front(chat: Conversation, sorter: Sorter) -> str | list[Call]:
    if sent := chat.of("agent_run"):
        return "\n\n".join(_heard(call) for call in sent)
    account = account_in(chat.question)
    known = f"Account {account}. " if account else ""
    concerns = sorter.concerns(chat.question)
    return [
        ("agent_run", {"agent_id": desk, "prompt": f"{known}{text}"}) for desk, text in concerns.items()
    ] or NO_CONCERN


def _heard(call: Done) -> str:
    desk = str(call.arguments["agent_id"]).capitalize()
    if call.status == "success" and call.data.get("output"):
        return f"{desk}: {call.data['output']}"
    return f"{desk}: nobody could answer ({call.message or call.status}); a person will."


def billing(chat: Conversation) -> str | list[Call]:
    looked = chat.of("invoices")
    if not looked:
        account = account_in(chat.question)
        return [("invoices", {"account": account})] if account else "Which account is it? Its number is like A-1001."
    if looked[-1].status != "success":
        return f"The account could not be looked up: {looked[-1].message}."
    return " ".join(oddities(looked[-1].data)) or "Every invoice of the account is as it should be."


def technical(chat: Conversation) -> str | list[Call]:
    looked = chat.of("known_faults")
    if not looked:
        return [("known_faults", {"symptom": chat.question})]
    found = looked[-1].data if looked[-1].status == "success" else []
    if not found:
        return "This fault is new to us; it has been noted."
    return f"{found[0]['fault']}: {found[0]['remedy']}"
