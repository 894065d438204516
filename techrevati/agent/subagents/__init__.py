"""Agents that an agent sends out, and waits for or not."""
