"""Who may call which tool with which arguments, and what is asked of a person."""
