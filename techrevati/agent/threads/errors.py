"""What a store of threads refuses, and why."""

from techrevati.runtime.errors import TechrevatiError


class ThreadStoreError(TechrevatiError):
    """Something a store of threads refused or could not do; nothing was written."""


class ThreadNotFound(ThreadStoreError):
    """No thread of that id is stored."""

    def __init__(self, thread_id: str) -> None:
        super().__init__(thread_id)
        self.thread_id = thread_id

    def __str__(self) -> str:
        return f"thread {self.thread_id!r} is not stored; fix: check the id, or create it"


class ThreadExists(ThreadStoreError):
    """A thread of that id is stored already."""

    def __init__(self, thread_id: str) -> None:
        super().__init__(thread_id)
        self.thread_id = thread_id

    def __str__(self) -> str:
        return f"thread {self.thread_id!r} is stored already; fix: append to it, or choose another id"


class VersionConflict(ThreadStoreError):
    """Somebody else wrote to the thread since it was read."""

    def __init__(self, thread_id: str, expected: int, actual: int) -> None:
        super().__init__(thread_id, expected, actual)
        self.thread_id, self.expected, self.actual = thread_id, expected, actual

    def __str__(self) -> str:
        return (
            f"thread {self.thread_id!r} is at version {self.actual}, and version {self.expected} was expected; "
            "fix: load it again and decide anew"
        )


class InvalidId(ThreadStoreError):
    """An id that cannot be stored under."""

    def __init__(self, what: str, text: str, rule: str) -> None:
        super().__init__(what, text, rule)
        self.what, self.text, self.rule = what, text, rule

    def __str__(self) -> str:
        return f"{self.what} {self.text!r} is refused: use {self.rule}"


class StoreIo(ThreadStoreError):
    """The medium below the store failed."""

    def __init__(self, what: str, cause: str) -> None:
        super().__init__(what, cause)
        self.what, self.cause = what, cause

    def __str__(self) -> str:
        return f"{self.what} failed: {self.cause}"


class NotReadable(ThreadStoreError):
    """What is stored is not what this release writes."""

    def __init__(self, what: str, cause: str) -> None:
        super().__init__(what, cause)
        self.what, self.cause = what, cause

    def __str__(self) -> str:
        return f"{self.what} cannot be read: {self.cause}"


class HistoryGone(ThreadStoreError):
    """The changes asked for were replaced by a whole thread."""

    def __init__(self, thread_id: str, version: int, oldest: int) -> None:
        super().__init__(thread_id, version, oldest)
        self.thread_id, self.version, self.oldest = thread_id, version, oldest

    def __str__(self) -> str:
        return (
            f"thread {self.thread_id!r} has no changes as old as version {self.version}; "
            f"they are kept from version {self.oldest}; fix: load the thread whole"
        )


class NoSuchVersion(ThreadStoreError):
    """The thread has no such version yet."""

    def __init__(self, thread_id: str, version: int, newest: int) -> None:
        super().__init__(thread_id, version, newest)
        self.thread_id, self.version, self.newest = thread_id, version, newest

    def __str__(self) -> str:
        return f"thread {self.thread_id!r} has no version {self.version}; its newest is {self.newest}"


class RunElsewhere(ThreadStoreError):
    """A run belongs to one thread, for good."""

    def __init__(self, run_id: str, home: str, thread_id: str) -> None:
        super().__init__(run_id, home, thread_id)
        self.run_id, self.home, self.thread_id = run_id, home, thread_id

    def __str__(self) -> str:
        return f"run {self.run_id!r} belongs to thread {self.home!r}, not to {self.thread_id!r}; fix: use a new run id"


class LineageConflict(ThreadStoreError):
    """A thread has one parent, for good."""

    def __init__(self, thread_id: str, known: str, given: str) -> None:
        super().__init__(thread_id, known, given)
        self.thread_id, self.known, self.given = thread_id, known, given

    def __str__(self) -> str:
        return f"thread {self.thread_id!r} is a child of {self.known!r}, and {self.given!r} was given as its parent"
