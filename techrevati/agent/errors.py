"""What the agent layer refuses, and why."""

from techrevati.runtime.errors import TechrevatiError


class AgentError(TechrevatiError):
    """Something an agent's definition or loop refused or could not do."""


class BadToolSchema(AgentError):
    """A tool's parameters are no usable JSON Schema."""

    def __init__(self, tool_id: str, why: str) -> None:
        super().__init__(tool_id, why)
        self.tool_id, self.why = tool_id, why

    def __str__(self) -> str:
        return f"tool {self.tool_id!r} has no usable parameter schema ({self.why}); fix: a JSON Schema of an object"


class BadToolFunction(AgentError):
    """A function cannot become a tool."""

    def __init__(self, function: str, why: str, fix: str) -> None:
        super().__init__(function, why, fix)
        self.function, self.why, self.fix = function, why, fix

    def __str__(self) -> str:
        return f"{self.function} cannot be a tool: {self.why}; fix: {self.fix}"


class WiringError(AgentError):
    """An agent's parts do not fit together; found when it is built, before anything runs."""

    def __init__(self, agent_id: str, what: str, fix: str) -> None:
        super().__init__(agent_id, what, fix)
        self.agent_id, self.what, self.fix = agent_id, what, fix

    def __str__(self) -> str:
        return f"agent {self.agent_id!r}: {self.what}; fix: {self.fix}"


class CommitFailed(AgentError):
    """A changeset could not be stored; nothing that depends on it is told."""

    def __init__(self, reason: str, cause: str) -> None:
        super().__init__(reason, cause)
        self.reason, self.cause = reason, cause

    def __str__(self) -> str:
        return f"changeset {self.reason} was not stored: {self.cause}"


class RunNotActive(AgentError):
    """The run is over, so nothing can reach it."""

    def __init__(self, run_id: str, what: str) -> None:
        super().__init__(run_id, what)
        self.run_id, self.what = run_id, what

    def __str__(self) -> str:
        return f"run {self.run_id} is over: {self.what} refused; fix: start another run on the thread"


class UnknownAgent(AgentError):
    """No agent of that id was given to the driver."""

    def __init__(self, agent_id: str, known: tuple[str, ...]) -> None:
        super().__init__(agent_id, known)
        self.agent_id, self.known = agent_id, known

    def __str__(self) -> str:
        return (
            f"agent {self.agent_id!r} is unknown; known: {', '.join(self.known) or 'none'}; fix: pass it to the driver"
        )
