"""The one root of this project's own errors."""


class TechrevatiError(Exception):
    """Anything this project raises on purpose.

    Subclasses hand their fields to ``Exception.__init__`` and format them in ``__str__``, so an
    error survives pickling and reads the same on both sides of a queue.
    """
