"""Tools from typed functions.

    @tool(timeout=10)
    async def search(query: str, limit: int = 5) -> list[str]:
        '''Search the archive.'''

signature ──pydantic──▶ JSON Schema and validation; docstring ──▶ description; return value ──▶ result

A parameter annotated `ToolCallContext` gets the call's context and is not part of the schema.
"""

import asyncio
import inspect
import typing
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, Literal, overload

import msgspec
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from techrevati.agent.errors import BadToolFunction
from techrevati.agent.state.spec import StateSpec
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import ToolDescriptor, ToolError, ToolExecutionEffect, ToolResult

Sleep = Callable[[float], Awaitable[None]]
Sees = Literal["state", "thread"]
_FIELD = "arg_"


@dataclass(frozen=True, slots=True)
class ToolRetry:
    """Try a call again inside itself, with the same idempotency key.

    Attributes:
        attempts: Calls in all.
        wait: Seconds before the second one; doubled each time.
        on: What is worth another try.  A `ToolError` never is: the tool has decided.
    """

    attempts: int = 1
    wait: float = 0.2
    on: tuple[type[Exception], ...] = (ConnectionError, TimeoutError)


class FunctionTool:
    """A tool whose body is a function.  Sync bodies run in a thread; a cancelled run does not wait for them."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        id: str | None = None,
        description: str | None = None,
        timeout: float | None = None,
        retry: ToolRetry | None = None,
        repeatable: bool = True,
        category: str | None = None,
        metadata: dict[str, Any] | None = None,
        states: Sequence[type[StateSpec]] = (),
        role: str | None = None,
        sees: Sees = "state",
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        retry = retry or ToolRetry()
        if timeout is not None and timeout <= 0:
            raise BadToolFunction(_name(function), f"its timeout is {timeout:g} s", "use more than 0, or None")
        if retry.attempts < 1:
            raise BadToolFunction(_name(function), f"it has {retry.attempts} attempts", "use 1 or more")
        if role is not None and not role.strip():
            raise BadToolFunction(_name(function), "its role is blank", "name the pool it runs in, or None")
        self.function, self.timeout, self.retry, self.repeatable = function, timeout, retry, repeatable
        self.states, self.role, self.sees = tuple(states), role, sees
        self._sleep = sleep
        self._arguments, self._context_name = _arguments(function)
        text = description if description is not None else inspect.getdoc(function) or ""
        schema = self._arguments.model_json_schema()
        schema.pop("title", None)
        schema.setdefault("properties", {})
        name = id or _name(function)
        self._descriptor = ToolDescriptor(name, name, text, schema, category, metadata or {})

    @property
    def descriptor(self) -> ToolDescriptor:
        return self._descriptor

    @property
    def takes_context(self) -> bool:
        return self._context_name is not None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, as if it had not been decorated."""
        return self.function(*args, **kwargs)

    def validate(self, arguments: Any) -> None:
        self._parsed(arguments)

    def _parsed(self, arguments: Any) -> dict[str, Any]:
        try:
            model = self._arguments.model_validate({} if arguments is None else arguments)
        except ValidationError as error:
            lines = (f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors())
            raise ToolError("; ".join(lines), "invalid_arguments") from error
        return {name.removeprefix(_FIELD): getattr(model, name) for name in type(model).model_fields}

    async def run(self, arguments: Any, ctx: ToolCallContext) -> ToolExecutionEffect:
        values = self._parsed(arguments)
        if self._context_name is not None:
            values[self._context_name] = ctx
        for attempt in range(1, self.retry.attempts + 1):
            try:
                return _effect(self.descriptor.id, await self._once(values))
            except ToolError:
                raise
            except self.retry.on as error:
                if attempt == self.retry.attempts:
                    raise
                if ctx.is_cancelled:
                    raise ToolError("the run was cancelled") from error
                await self._sleep(self.retry.wait * 2 ** (attempt - 1))
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _once(self, values: dict[str, Any]) -> Any:
        limit = asyncio.timeout(self.timeout)
        try:
            async with limit:
                if inspect.iscoroutinefunction(self.function):
                    return await self.function(**values)
                value = await asyncio.to_thread(self.function, **values)
                return await value if inspect.isawaitable(value) else value
        except TimeoutError as error:
            if limit.expired():
                raise TimeoutError(f"no result within {self.timeout:g} s") from error
            raise


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _arguments(function: Callable[..., Any]) -> tuple[type[BaseModel], str | None]:
    name = _name(function)
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise BadToolFunction(name, f"an annotation cannot be read ({error})", "import the type at run time") from error
    fields: dict[str, Any] = {}
    context: str | None = None
    for parameter in inspect.signature(function).parameters.values():
        hint = hints.get(parameter.name)
        if hint is ToolCallContext:
            context = parameter.name
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise BadToolFunction(
                name, f"parameter {parameter.name!r} cannot be passed by name", "use plain named parameters"
            )
        if hint is None:
            raise BadToolFunction(name, f"parameter {parameter.name!r} has no annotation", "annotate it")
        default = ... if parameter.default is parameter.empty else parameter.default
        # Under an alias, so that a parameter may be called `schema` or `copy`, as attributes of every model are.
        fields[f"{_FIELD}{parameter.name}"] = (hint, Field(default, alias=parameter.name))
    try:
        return create_model(f"{name}_arguments", __config__=ConfigDict(extra="forbid"), **fields), context
    except (PydanticSchemaGenerationError, PydanticUserError, NameError) as error:
        raise BadToolFunction(name, str(error).splitlines()[0], "use types that pydantic can read from JSON") from error


def _effect(name: str, value: Any) -> ToolExecutionEffect:
    if isinstance(value, ToolExecutionEffect):
        return value
    if isinstance(value, ToolResult):
        return ToolExecutionEffect(value)
    return ToolExecutionEffect(ToolResult.success(name, as_json(value)))


def as_json(value: Any) -> Any:
    """Give plain JSON of a tool's return value: pydantic models, dataclasses, structs, dates, sets.

    Raises:
        ToolError: it is not JSON.
    """
    try:
        if isinstance(value, BaseModel) or (is_dataclass(value) and not isinstance(value, type)):
            return TypeAdapter(type(value)).dump_python(value, mode="json")
        return msgspec.to_builtins(value, enc_hook=_encode)
    except (TypeError, ValueError) as error:
        raise ToolError(f"the tool returned what is not JSON ({error})", "internal") from error


def _encode(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not JSON")


@overload
def tool(function: Callable[..., Any], /) -> FunctionTool: ...
@overload
def tool(
    *,
    id: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    retry: ToolRetry | None = None,
    repeatable: bool = True,
    category: str | None = None,
    metadata: dict[str, Any] | None = None,
    states: Sequence[type[StateSpec]] = (),
    role: str | None = None,
    sees: Sees = "state",
) -> Callable[[Callable[..., Any]], FunctionTool]: ...
def tool(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a tool of a typed function.

    Args:
        function: Sync or async; every parameter annotated, all passed by name.
        options: id (the function's name), description (its docstring), timeout (s per attempt), retry,
            repeatable (False: never run twice for one call, also not after a conflict), category, metadata,
            states (those its actions are for, unless a behaviour owns them), role (on a fleet, the pool that runs
            it, as a queue task of its own; in one process it means nothing), sees (what goes along to that pool
            if the function takes a context: the state, or the messages too).

    Raises:
        BadToolFunction: its signature cannot be told to a model.
    """
    if function is not None:
        return FunctionTool(function)
    return lambda body: FunctionTool(body, **options)
