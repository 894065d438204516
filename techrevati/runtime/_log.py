"""The logger of sessions, under the name operators know."""

import logging

logger = logging.getLogger("techrevati.runtime.orchestrator")
logger.addHandler(logging.NullHandler())
