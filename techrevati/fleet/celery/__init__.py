"""The Celery half: what turns a ticket in a broker into a served turn.

    app ─▶ bootsteps ─▶ transport ─▶ strategy ─▶ pool ─▶ async_task ─▶ tickets ─▶ `app.techrevati_serve`

It knows no agent and no store: what a ticket means is injected by `techrevati.fleet.serving`.
"""
