"""Which provider answers for which prefix: ``openai:NAME`` and ``anthropic:NAME``."""

from techrevati.fleet.anthropic_model import AnthropicModel
from techrevati.fleet.models import Models
from techrevati.fleet.openai_model import OpenAIModel

__all__ = ["AnthropicModel", "OpenAIModel", "known_providers"]


def known_providers(models: Models) -> Models:
    """Let a fleet's models answer to the providers' prefixes."""
    models.provider("openai", OpenAIModel)
    models.provider("anthropic", AnthropicModel)
    return models
