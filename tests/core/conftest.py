"""Dialogues with a session machine that has been opened."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vivavoce.core.messages import Opened
from vivavoce.core.session import Session
from vivavoce.testing.playbook import Playbook, counting_ids, playbook


@pytest.fixture
def session() -> Session:
    """A machine that has heard nothing yet."""
    return Session(id="sess_1", model="scripted", ids=counting_ids(), expires_at=3_600, instructions="Be brief.")


@pytest.fixture
def play(session: Session) -> Iterator[Playbook]:
    """A dialogue with it, behind the greeting."""
    with playbook(session) as play:
        play >> Opened() << ...
        yield play
