"""What a fleet shares, on Redis: threads, runs, leases, events.  Needs no Celery."""
