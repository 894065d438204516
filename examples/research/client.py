"""Ask the research agent, show what it wants to publish, decide, and print what became of it.

python -m examples.research.client "Who gave up leap seconds, and why?" [--yes | --no]
python -m examples.research.client --run RUN        a run that was left waiting, in another shell, another day
"""

import argparse
import time
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

from techrevati.fleet import Client
from techrevati.fleet.client import Run

QUESTION = "Who gave up leap seconds, and why?"
WAIT = 120.0  # s
LOOK = 0.1  # s


def asked(run: Run, answered: Container[str] = (), timeout: float = WAIT) -> Mapping[str, Any] | None:
    """Wait until the run asks something that is not answered yet, and give the call; None if it has ended.

    Raises:
        TimeoutError: neither came in time.
    """
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        record = run.status()
        if record.status.is_terminal:
            return None
        waiting: Sequence[Mapping[str, Any]] = record.waits_for or () if record.why == "decision" else ()
        if call := next((one for one in waiting if one["call_id"] not in answered), None):
            return call
        time.sleep(LOOK)
    raise TimeoutError(f"run {run.id} asked nothing in {timeout:g} s; it goes on; see `techrevati why`")


def shown(call: Mapping[str, Any]) -> str:
    """Give the question as a person reads it."""
    suspension = call["payload"]["suspension"]
    arguments = suspension["parameters"]["tool_args"]
    return f"{suspension['message']}\n\n# {arguments['title']}\n\n{arguments['text']}\n"


def converse(run: Run, agrees: Callable[[str], bool]) -> str:
    """Answer whatever the run asks, and give its result."""
    answered: set[str] = set()
    while (call := asked(run, answered)) is not None:
        run.decide(call["call_id"], "resume" if agrees(shown(call)) else "cancel")
        answered.add(call["call_id"])
    return str(run.result(timeout=WAIT))


def at_the_terminal(question: str) -> bool:
    print(question)
    return input("publish? [y/N] ").strip().lower() in ("y", "yes")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", nargs="?", default=QUESTION)
    parser.add_argument("--run", help="go on with a run instead of starting one")
    answer = parser.add_mutually_exclusive_group()
    answer.add_argument("--yes", dest="agreed", action="store_true", default=None, help="approve without asking")
    answer.add_argument("--no", dest="agreed", action="store_false", help="deny without asking")
    given = parser.parse_args(arguments)

    def agrees(question: str) -> bool:
        if given.agreed is None:
            return at_the_terminal(question)
        print(question)
        return bool(given.agreed)

    with Client(fleet="research") as client:
        run = client.run(given.run) if given.run else client.start("researcher", given.question)
        print(f"run {run.id}")
        try:
            print(converse(run, agrees))
        except (EOFError, KeyboardInterrupt):
            print(f"\nit waits; go on with: python -m examples.research.client --run {run.id}")


if __name__ == "__main__":
    main()
