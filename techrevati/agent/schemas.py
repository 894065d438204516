"""Hold arguments to a JSON Schema, and say what is wrong in words a model can act on."""

from functools import lru_cache
from typing import Any

import msgspec
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable

from techrevati.agent.errors import BadToolSchema
from techrevati.agent.tools import ToolDescriptor, ToolError

_MOST_PROBLEMS = 5


@lru_cache(maxsize=1024)
def _validator(schema: bytes) -> Draft202012Validator:
    # A registry of its own: without one a `$ref` to a URL would be fetched, and schemas come from strangers too.
    return Draft202012Validator(msgspec.json.decode(schema), registry=Registry())


def check_schema(descriptor: ToolDescriptor) -> None:
    """Refuse a descriptor whose parameters are no JSON Schema of an object.

    Raises:
        BadToolSchema: naming the tool.
    """
    try:
        Draft202012Validator.check_schema(descriptor.parameters)
    except SchemaError as error:
        raise BadToolSchema(descriptor.id, error.message) from error
    if descriptor.parameters.get("type", "object") != "object":
        raise BadToolSchema(descriptor.id, f"its type is {descriptor.parameters['type']!r}, not 'object'")


def check_arguments(descriptor: ToolDescriptor, arguments: Any) -> None:
    """Hold `arguments` to the descriptor's schema.

    Raises:
        ToolError: kind ``invalid_arguments``, with up to five problems and where they are.
    """
    validator = _validator(msgspec.json.encode(descriptor.parameters, order="sorted"))
    try:
        problems = sorted(validator.iter_errors(arguments), key=lambda e: [str(part) for part in e.absolute_path])
    except Unresolvable as error:
        raise ToolError(f"the tool's schema refers to what it does not hold: {error}", "invalid_arguments") from error
    if problems:
        lines = [f"{'.'.join(map(str, p.absolute_path)) or 'arguments'}: {p.message}" for p in problems]
        raise ToolError("; ".join(lines[:_MOST_PROBLEMS]), "invalid_arguments")
