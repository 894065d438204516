"""What a turn means: phases, actions, state, suspension.  No queue, no store, no network."""
