"""The Realtime API from both ends."""
