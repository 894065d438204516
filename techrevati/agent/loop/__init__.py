"""The loop of a run, one step at a time; nothing of it lives in Python between steps."""
