"""Budgets: reserve before a call, settle after it, at every level at once."""

from techrevati.store.budgets.budget import AsyncBudget, Budget
from techrevati.store.budgets.errors import BadBudget, BudgetRefused, ReservationClosed
from techrevati.store.budgets.names import BudgetKeys, call_id
from techrevati.store.budgets.records import Account, Book, BudgetEvent, Level, Reservation, State
from techrevati.store.budgets.spec import Cost, Limit, Limits, Scope, Unit, Window, usd
from techrevati.store.budgets.trouble import OnStoreError, Report

__all__ = [
    "Account",
    "AsyncBudget",
    "BadBudget",
    "Book",
    "Budget",
    "BudgetEvent",
    "BudgetKeys",
    "BudgetRefused",
    "Cost",
    "Level",
    "Limit",
    "Limits",
    "OnStoreError",
    "Report",
    "Reservation",
    "ReservationClosed",
    "Scope",
    "State",
    "Unit",
    "Window",
    "call_id",
    "usd",
]
