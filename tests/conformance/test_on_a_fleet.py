"""What only a fleet can be asked, or only in real time; and what the tests of one process leave open."""

from tests.conformance import fleet_rules
from tests.conformance.rules import on_the_fleet

globals().update(on_the_fleet(fleet_rules))
