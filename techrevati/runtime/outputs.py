"""Typed outputs: say what a result must look like, and get it parsed or refused.

    result ──spec.parse──▶ value │ OutputRejectedError(path, problem)

`JsonOutput` knows a subset of JSON Schema (draft 2020-12): type, enum, const, properties,
required, additionalProperties, items, minItems, maxItems, minLength, maxLength, pattern, minimum,
maximum, exclusiveMinimum, exclusiveMaximum, anyOf, and annotations.  A schema with anything else
is refused when it is given, not silently half-checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from techrevati.runtime.errors import TechrevatiError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class OutputRejectedError(TechrevatiError, ValueError):
    """A result is not what the spec asks for; `path` says where, from ``$`` down."""

    def __init__(self, problem: str, path: str = "$") -> None:
        super().__init__(problem, path)
        self.problem, self.path = problem, path

    def __str__(self) -> str:
        return f"output rejected at {self.path}: {self.problem}"


class OutputSpec(Protocol[T_co]):
    """Turns a raw result into a checked one."""

    def parse(self, result: Any) -> T_co: ...


@dataclass(frozen=True)
class RegexOutput:
    """Text that matches `pattern` as a whole, surrounding blanks aside."""

    pattern: str
    _compiled: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_compiled", re.compile(self.pattern))

    def parse(self, result: Any) -> str:
        """The text, stripped.

        Raises:
            OutputRejectedError: it is no text, or does not match.
        """
        if not isinstance(result, str):
            raise OutputRejectedError(f"expected text, got {type(result).__name__}")
        text = result.strip()
        if not self._compiled.fullmatch(text):
            raise OutputRejectedError(f"{text!r} does not match {self.pattern!r}")
        return text


@dataclass(frozen=True)
class CallableOutput(Generic[T]):
    """Whatever `check` makes of the result; what it raises as a refusal is translated.

    `ValueError`, `TypeError` and `KeyError` are refusals; anything else is a bug and passes through.
    """

    check: Callable[[Any], T]

    def parse(self, result: Any) -> T:
        """``check(result)``.

        Raises:
            OutputRejectedError: `check` refused it.
        """
        try:
            return self.check(result)
        except OutputRejectedError:
            raise
        except (ValueError, TypeError, KeyError) as error:
            raise OutputRejectedError(str(error) or type(error).__name__) from error


@dataclass(frozen=True)
class JsonOutput:
    """JSON of a given shape: text is parsed first, anything else is checked as it is."""

    schema: Mapping[str, Any]

    def __post_init__(self) -> None:
        _check_schema(self.schema, "$")

    def parse(self, result: Any) -> Any:
        """The parsed value.

        Raises:
            OutputRejectedError: it is no JSON, or not of that shape.
        """
        value = result
        if isinstance(result, str | bytes):
            try:
                value = json.loads(result)
            except ValueError as error:
                raise OutputRejectedError(f"not JSON: {error}") from error
        _check(value, self.schema, "$")
        return value


_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())
    ),
}
_ANNOTATIONS = frozenset({"$schema", "$id", "$comment", "title", "description", "default", "examples", "format"})


def _check_schema(schema: Any, path: str) -> None:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping):
        raise ValueError(f"schema at {path} must be an object or a boolean, got {type(schema).__name__}")
    for word in schema:
        if word not in _CHECKS and word not in _ANNOTATIONS:
            raise ValueError(f"schema at {path} uses '{word}', which is not supported: use CallableOutput")
    for name in _type_names(schema):
        if name not in _TYPES:
            raise ValueError(f"schema at {path} has the unknown type {name!r}: use one of {sorted(_TYPES)}")
    for name, part in schema.get("properties", {}).items():
        _check_schema(part, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        if word in schema:
            _check_schema(schema[word], f"{path}.{word}")
    for index, part in enumerate(schema.get("anyOf", ())):
        _check_schema(part, f"{path}.anyOf[{index}]")
    if "pattern" in schema:
        re.compile(schema["pattern"])


def _type_names(schema: Mapping[str, Any]) -> list[str]:
    names = schema.get("type", [])
    return [names] if isinstance(names, str) else list(names)


def _check(value: Any, schema: Any, path: str) -> None:
    if schema is True:
        return
    if schema is False:
        raise OutputRejectedError("nothing is allowed here", path)
    for word, wanted in schema.items():
        check = _CHECKS.get(word)
        if check is not None:
            check(value, wanted, schema, path)


def _same(one: Any, other: Any) -> bool:
    """Equality of JSON values, where ``true`` is not ``1``."""
    if isinstance(one, bool) is not isinstance(other, bool):
        return False
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)


def _type(value: Any, wanted: Any, schema: Mapping[str, Any], path: str) -> None:
    names = _type_names(schema)
    if not any(_TYPES[name](value) for name in names):
        raise OutputRejectedError(f"expected {' or '.join(names)}, got {_json_type(value)}", path)


def _json_type(value: Any) -> str:
    return next((name for name, matches in _TYPES.items() if matches(value)), type(value).__name__)


def _enum(value: Any, wanted: Any, schema: Mapping[str, Any], path: str) -> None:
    if not any(_same(value, choice) for choice in wanted):
        raise OutputRejectedError(f"{value!r} is none of {list(wanted)!r}", path)


def _const(value: Any, wanted: Any, schema: Mapping[str, Any], path: str) -> None:
    if not _same(value, wanted):
        raise OutputRejectedError(f"expected {wanted!r}, got {value!r}", path)


def _required(value: Any, wanted: Any, schema: Mapping[str, Any], path: str) -> None:
    if isinstance(value, dict):
        for name in wanted:
            if name not in value:
                raise OutputRejectedError(f"'{name}' is missing", path)


def _properties(value: Any, wanted: Any, schema: Mapping[str, Any], path: str) -> None:
    if isinstance(value, dict):
        for name, part in wanted.items():
            if name in value:
                _check(value[name], part, f"{path}.{name}")


def _additional(value: Any, wanted: Any, schema: Mapping[str, Any], path: str) -> None:
    if isinstance(value, dict):
        for name in value.keys() - schema.get("properties", {}).keys():
            if wanted is False:
                raise OutputRejectedError(f"'{name}' is not expected", path)
            _check(value[name], wanted, f"{path}.{name}")


def _items(value: Any, wanted: Any, schema: Mapping[str, Any], path: str) -> None:
    if isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, wanted, f"{path}[{index}]")


def _any_of(value: Any, wanted: Any, schema: Mapping[str, Any], path: str) -> None:
    problems = []
    for part in wanted:
        try:
            return _check(value, part, path)
        except OutputRejectedError as error:
            problems.append(error.problem)
    raise OutputRejectedError(f"fits no alternative ({'; '.join(problems)})", path)


def _pattern(value: Any, wanted: Any, schema: Mapping[str, Any], path: str) -> None:
    if isinstance(value, str) and not re.search(wanted, value):
        raise OutputRejectedError(f"{value!r} does not match {wanted!r}", path)


def _sized(kind: type, at_least: bool) -> Callable[[Any, Any, Mapping[str, Any], str], None]:
    def check(value: Any, wanted: Any, schema: Mapping[str, Any], path: str) -> None:
        if isinstance(value, kind):
            size = len(value)  # type: ignore[arg-type]  # str or list
            if size < wanted if at_least else size > wanted:
                bound = "at least" if at_least else "at most"
                raise OutputRejectedError(f"has size {size}, expected {bound} {wanted}", path)

    return check


def _bounded(word: str, fits: Callable[[float, float], bool]) -> Callable[[Any, Any, Mapping[str, Any], str], None]:
    def check(value: Any, wanted: Any, schema: Mapping[str, Any], path: str) -> None:
        if _TYPES["number"](value) and not fits(value, wanted):
            raise OutputRejectedError(f"{value} breaks {word} {wanted}", path)

    return check


_CHECKS: dict[str, Callable[[Any, Any, Mapping[str, Any], str], None]] = {
    "type": _type,
    "enum": _enum,
    "const": _const,
    "required": _required,
    "properties": _properties,
    "additionalProperties": _additional,
    "items": _items,
    "anyOf": _any_of,
    "pattern": _pattern,
    "minItems": _sized(list, True),
    "maxItems": _sized(list, False),
    "minLength": _sized(str, True),
    "maxLength": _sized(str, False),
    "minimum": _bounded("minimum", lambda value, bound: value >= bound),
    "maximum": _bounded("maximum", lambda value, bound: value <= bound),
    "exclusiveMinimum": _bounded("exclusiveMinimum", lambda value, bound: value > bound),
    "exclusiveMaximum": _bounded("exclusiveMaximum", lambda value, bound: value < bound),
}
