"""What most commands take: a fleet, a store, a run."""

from typing import Annotated

import typer
from rich.console import Console

from techrevati.fleet.client import Client
from techrevati.fleet.settings import Settings, load_settings

out = Console()

FleetName = Annotated[str, typer.Option("--fleet", "-f", help="the fleet's name", envvar="TECHREVATI_FLEET")]
Url = Annotated[str | None, typer.Option("--redis", help="the store; default: TECHREVATI_REDIS_URL")]
RunId = Annotated[str, typer.Argument(help="the run's id")]


def settings_for(url: str | None) -> Settings:
    return load_settings(**({"redis_url": url} if url else {}))


def client_for(fleet: str, url: str | None) -> Client:
    return Client(fleet=fleet, settings=settings_for(url))
