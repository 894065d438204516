"""The Celery app of one role of the test fleet: ``ACCEPTANCE_ROLE=alpha celery -A tests.acceptance.worker worker``."""

import os

from tests.acceptance.agents import crash_here, make_fleet

role = os.environ["ACCEPTANCE_ROLE"]
app = make_fleet(role, os.environ.get("ACCEPTANCE_PEER", "")).celery_for(role, seam=crash_here)
