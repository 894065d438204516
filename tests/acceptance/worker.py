"""The Celery app of one role of the test fleet: ``ACCEPTANCE_ROLE=alpha celery -A tests.acceptance.worker worker``."""

import os

from tests.acceptance.agents import make_fleet
from tests.acceptance.limits import declare_limits
from tests.acceptance.seams import crash_here
from tests.acceptance.spending import declare_spending

role = os.environ["ACCEPTANCE_ROLE"]
fleet = make_fleet(role, os.environ.get("ACCEPTANCE_PEER", ""))
if os.environ.get("ACCEPTANCE_LIMITS"):
    declare_limits(fleet, role)
if os.environ.get("ACCEPTANCE_SPENDING"):
    declare_spending(fleet, role)
app = fleet.celery_for(role, seam=crash_here)
