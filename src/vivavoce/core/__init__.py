"""The mind: the session machine and the conversation that both ends fold. Pure: no clock, no chance, no I/O."""
