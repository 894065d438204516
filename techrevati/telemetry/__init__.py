"""Logs, metrics, traces: a side leaf that listens."""
