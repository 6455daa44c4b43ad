"""What speaks WebSocket in the tests of this folder: the fixture `door` of `conftest.py` says it."""

from __future__ import annotations

DOORS = ("uvicorn", "picows")

SERVED = {"websocket": DOORS[0]}
"""Settings of every server of these tests."""
