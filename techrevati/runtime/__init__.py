"""Primitives of one process; standard library only."""
