"""How stages are carried out: in which order, in which processes, and what the terminal is told."""
