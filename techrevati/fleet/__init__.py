"""Agent sessions as Celery tasks in role pools.

from techrevati.fleet import Client, Fleet, Outcome, Turn
"""

from techrevati.fleet.aclient import AsyncClient
from techrevati.fleet.client import Client
from techrevati.fleet.failures import Retry
from techrevati.fleet.fleet import Fleet
from techrevati.fleet.hedging import Hedge
from techrevati.fleet.model_failures import ModelFailed
from techrevati.fleet.models import ModelClient, ModelReply, ModelRequest, RetryLater
from techrevati.fleet.outcome import Ask, Decision, Outcome, Parked
from techrevati.fleet.questions import Question
from techrevati.fleet.routed import RoutedModel
from techrevati.fleet.settings import Settings, load_settings
from techrevati.fleet.turn import Turn
from techrevati.store.records import Event, OnBusy, RunRecord, Status

__all__ = [
    "Ask",
    "AsyncClient",
    "Client",
    "Decision",
    "Event",
    "Fleet",
    "Hedge",
    "ModelClient",
    "ModelFailed",
    "ModelReply",
    "ModelRequest",
    "OnBusy",
    "Outcome",
    "Parked",
    "Question",
    "Retry",
    "RetryLater",
    "RoutedModel",
    "RunRecord",
    "Settings",
    "Status",
    "Turn",
    "load_settings",
]
