"""Send a ticket to the desk, print its answer, and which desks had a part in it.

python -m examples.triage.client ["the ticket"]
"""

import argparse

from techrevati.fleet import Client

TICKET = """\
Hello, my account is A-1001. I was charged twice for October.
And since the update to 4.2 the app crashes when I open it.
Best regards"""
WAIT = 120.0  # s


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ticket", nargs="?", default=TICKET)
    given = parser.parse_args(arguments)
    with Client(fleet="triage") as client:
        run = client.start("front", given.ticket)
        print(f"run {run.id}")
        answer = run.result(timeout=WAIT)
        for child in run.children():
            print(f"  {child.agent}: {child.status}, {child.turn} turns, on {child.thread_id}")
        print(f"\n{answer}")


if __name__ == "__main__":
    main()
