"""Agent sessions as Celery tasks in role pools."""
