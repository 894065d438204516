"""What the store refuses, and why."""

from typing import Any

from techrevati.runtime.errors import TechrevatiError


class StoreError(TechrevatiError):
    """Something the shared store refused or could not do."""


class BadName(StoreError):
    """A name that could not be part of a key."""

    def __init__(self, what: str, name: str, rule: str) -> None:
        super().__init__(what, name, rule)
        self.what, self.name, self.rule = what, name, rule

    def __str__(self) -> str:
        return f"{self.what} {self.name!r} is refused: use {self.rule}"


class BadAddress(StoreError, ValueError):
    """A URL that leads to no store."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(url, why)
        self.url, self.why = url, why

    def __str__(self) -> str:
        return (
            f"address {self.url!r} is refused ({self.why}); "
            "fix: write it as sentinel://[user:password@]host:26379,host2:26379/0?master_name=mymaster"
        )


class StoreUnreachable(StoreError):
    """Redis did not answer, or not in time; nothing is known to have been written."""

    def __init__(self, url: str, cause: str) -> None:
        super().__init__(url, cause)
        self.url, self.cause = url, cause

    def __str__(self) -> str:
        return f"Redis at {self.url} cannot be reached ({self.cause}); fix: start it, or set TECHREVATI_REDIS_URL"


class StoreDenied(StoreError):
    """Redis answered and refused the credentials or the command."""

    def __init__(self, url: str, cause: str) -> None:
        super().__init__(url, cause)
        self.url, self.cause = url, cause

    def __str__(self) -> str:
        return (
            f"Redis at {self.url} refused us ({self.cause}); "
            "fix: check the user and password in TECHREVATI_REDIS_URL and the server's ACL"
        )


class StoreUnfit(StoreError):
    """The server or its settings cannot carry what was asked of it."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what, fix)
        self.what, self.fix = what, fix

    def __str__(self) -> str:
        return f"{self.what}; fix: {self.fix}"


class FleetMismatch(StoreError):
    """The store was made with other numbers than this process was given."""

    def __init__(self, fleet: str, what: str, stored: Any, given: Any) -> None:
        super().__init__(fleet, what, stored, given)
        self.fleet, self.what, self.stored, self.given = fleet, what, stored, given

    def __str__(self) -> str:
        return (
            f"fleet {self.fleet!r} was created with {self.what}={self.stored}, this process says {self.given}; "
            f"fix: use {self.what}={self.stored}, or another fleet name"
        )


class UpgradeRequired(StoreError):
    """This process speaks a protocol older than the fleet's minimum."""

    def __init__(self, spoken: int, minimum: int) -> None:
        super().__init__(spoken, minimum)
        self.spoken, self.minimum = spoken, minimum

    def __str__(self) -> str:
        return f"protocol {self.spoken} is below the fleet's minimum {self.minimum}; fix: upgrade techrevati-workers"


class LeaseLost(StoreError):
    """Another holder took the run, or it was revoked; whatever this one writes is refused."""

    def __init__(self, run_id: str, held: str, current: str) -> None:
        super().__init__(run_id, held, current)
        self.run_id, self.held, self.current = run_id, held, current

    def __str__(self) -> str:
        return f"run {self.run_id}: token {self.held} is not the lease's ({self.current or 'none is held'})"


class RunNotFound(StoreError):
    """No run of that id is known: it never was, or its retention ended."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    def __str__(self) -> str:
        return f"run {self.run_id!r} is not known: check the id and the fleet's name, or its retention has ended"


class RunEnded(StoreError):
    """The run is terminal, so nothing more can reach it."""

    def __init__(self, run_id: str, status: str) -> None:
        super().__init__(run_id, status)
        self.run_id, self.status = run_id, status

    def __str__(self) -> str:
        return f"run {self.run_id} is {self.status} already"


class NotRetriable(StoreError):
    """Only a dead, failed or cancelled run can be sent back to work."""

    def __init__(self, run_id: str, status: str) -> None:
        super().__init__(run_id, status)
        self.run_id, self.status = run_id, status

    def __str__(self) -> str:
        return f"run {self.run_id} is {self.status}; only dead, failed or cancelled runs can be retried"


class ThreadBusy(StoreError):
    """The thread has an active run, and the caller asked not to wait behind it."""

    def __init__(self, thread_id: str, active: str) -> None:
        super().__init__(thread_id, active)
        self.thread_id, self.active = thread_id, active

    def __str__(self) -> str:
        return (
            f"thread {self.thread_id!r} has the active run {self.active}; "
            "fix: wait for it, or start with on_busy='enqueue', 'interrupt' or 'rollback'"
        )


class ThreadInUse(StoreError):
    """A run is active on the thread that was to be deleted."""

    def __init__(self, thread_id: str, active: str) -> None:
        super().__init__(thread_id, active)
        self.thread_id, self.active = thread_id, active

    def __str__(self) -> str:
        return (
            f"thread {self.thread_id!r} has the active run {self.active}; "
            "fix: wait for it or cancel it, or delete with force, which revokes it"
        )


class ThreadNotFound(StoreError):
    """The tenant has no thread of that id: it never was, was deleted, or its retention ended."""

    def __init__(self, thread_id: str, tenant: str) -> None:
        super().__init__(thread_id, tenant)
        self.thread_id, self.tenant = thread_id, tenant

    def __str__(self) -> str:
        return (
            f"thread {self.thread_id!r} of tenant {self.tenant!r} is not known; "
            "fix: check the id and the tenant, or it was deleted"
        )


class VersionGone(StoreError):
    """A version of a thread that was asked for is not kept, or never was."""

    def __init__(self, thread_id: str, version: int, oldest: int | None, newest: int) -> None:
        super().__init__(thread_id, version, oldest, newest)
        self.thread_id, self.version, self.oldest, self.newest = thread_id, version, oldest, newest

    def __str__(self) -> str:
        kept = f"{self.newest}" if self.oldest is None else f"{self.oldest} to {self.newest}"
        if self.version > self.newest:
            return f"thread {self.thread_id!r} has no version {self.version} yet; fix: use one of {kept}"
        return (
            f"version {self.version} of thread {self.thread_id!r} is not kept any more; fix: use one of {kept}, "
            "and raise TECHREVATI_KEEP_CHECKPOINTS to keep more"
        )


class LineFull(StoreError):
    """Too many runs already wait behind the thread's active one."""

    def __init__(self, thread_id: str, length: int) -> None:
        super().__init__(thread_id, length)
        self.thread_id, self.length = thread_id, length

    def __str__(self) -> str:
        return (
            f"thread {self.thread_id!r} has {self.length} runs in line already; "
            "fix: use another thread, or start with on_busy='interrupt'"
        )


class IdempotencyConflict(StoreError):
    """The idempotency key was used before, for something else."""

    def __init__(self, key: str, run_id: str) -> None:
        super().__init__(key, run_id)
        self.key, self.run_id = key, run_id

    def __str__(self) -> str:
        return (
            f"idempotency key {self.key!r} already started run {self.run_id} with other arguments; fix: use a new key"
        )


class TooManyChildren(StoreError):
    """A run may have 128 sub-agents in its life, so that one script can stop the tree."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    def __str__(self) -> str:
        return f"run {self.run_id} has 128 sub-agents already"


class UnknownCall(StoreError):
    """A decision names a call the waiting run did not suspend."""

    def __init__(self, run_id: str, call_id: str) -> None:
        super().__init__(run_id, call_id)
        self.run_id, self.call_id = run_id, call_id

    def __str__(self) -> str:
        return f"run {self.run_id} does not wait for call {self.call_id!r}; `status()` lists what it waits for"


class AlreadyDecided(StoreError):
    """Another decision for the call came first."""

    def __init__(self, run_id: str, call_id: str) -> None:
        super().__init__(run_id, call_id)
        self.run_id, self.call_id = run_id, call_id

    def __str__(self) -> str:
        return f"call {self.call_id!r} of run {self.run_id} is decided already; the first decision stands"


class AmbiguousCall(StoreError):
    """Several sub-agents of a run ask a call of this id."""

    def __init__(self, run_id: str, call_id: str) -> None:
        super().__init__(run_id, call_id)
        self.run_id, self.call_id = run_id, call_id

    def __str__(self) -> str:
        return (
            f"several sub-agents of run {self.run_id} ask a call {self.call_id!r}; "
            "fix: name the one you mean as '<run id>/<call id>', as `questions()` gives it"
        )


class StepInDoubt(StoreError):
    """A `once` step began in an attempt that died: whether it took effect is not known."""

    def __init__(self, run_id: str, key: str) -> None:
        super().__init__(run_id, key)
        self.run_id, self.key = run_id, key

    def __str__(self) -> str:
        return (
            f"step {self.key!r} of run {self.run_id} began before a crash and may have taken effect; "
            "it is declared policy='once' and is not run again: find out, then retry the run"
        )


class PayloadTooLarge(StoreError):
    """A value is over the fleet's limit."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(what, size, limit)
        self.what, self.size, self.limit = what, size, limit

    def __str__(self) -> str:
        return (
            f"{self.what} is {self.size:,} bytes, over the limit of {self.limit:,}; "
            "fix: keep large data elsewhere and pass a reference, or raise TECHREVATI_MAX_PAYLOAD"
        )


class NotJson(StoreError):
    """A value cannot be stored as JSON."""

    def __init__(self, what: str, cause: str) -> None:
        super().__init__(what, cause)
        self.what, self.cause = what, cause

    def __str__(self) -> str:
        return f"{self.what} is not JSON ({self.cause}); fix: use dict, list, str, int, float, bool and None"


class ScriptFault(StoreError):
    """A script answered what this release does not know."""

    def __init__(self, script: str, reply: str) -> None:
        super().__init__(script, reply)
        self.script, self.reply = script, reply

    def __str__(self) -> str:
        return f"script {self.script} answered {self.reply}"
