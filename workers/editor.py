"""The editor pool: ``celery -A workers.editor worker`` needs no further flags.

To make a pool of your own, copy this file to ``workers/ROLE.py``, import your fleet instead of
the newsroom, and put your role's name in the last line: pool, queue and concurrency come with it.
Scale by starting it again, here or on any machine that reaches the same Redis.
"""

from examples.newsroom import fleet

app = fleet.celery_for("editor")
