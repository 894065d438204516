"""Behaviours that come with the agent layer: what an agent gets by naming them in its definition."""
