"""Other ways to write the same events, as tables."""
