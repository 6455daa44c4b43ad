"""`openai` 1.60, from the time of the preview, unmodified, against the server: the service's client and Azure's.

It cannot share an environment with the current package, so `uv` gives it one of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from checks import CHECKS
from environments import run_python
from heard import Heard
from openai_client import OF_THE_PREVIEW
from strictness import BETA_1_60

pytestmark = pytest.mark.interop

VERSION = "1.60.0"

every_conversation = pytest.mark.parametrize("title", OF_THE_PREVIEW)


@pytest.fixture(scope="module")
def told(server_url: str) -> dict[str, dict[str, Any]]:
    """What both clients heard in all conversations, held by the program in an environment of its own."""
    heard: dict[str, dict[str, Any]] = run_python("openai_client.py", server_url, f"openai[realtime]=={VERSION}")
    return heard


@pytest.fixture(params=["openai", "azure"])
def heard_in(request: pytest.FixtureRequest, told: dict[str, dict[str, Any]]) -> Callable[[str], Heard]:
    """What one of the clients heard in the conversation of this title."""
    return lambda title: Heard(**told[request.param][title])


@every_conversation
def test_conversation(title: str, heard_in: Callable[[str], Heard]) -> None:
    heard = heard_in(title)
    heard.errors = [(code, param, event_id) for code, param, event_id in heard.errors]
    CHECKS[title](heard)


@every_conversation
def test_every_event_has_the_class_of_its_type(title: str, heard_in: Callable[[str], Heard]) -> None:
    """The package makes an object of some class even of what it does not know; the class shows that it knew."""
    heard = heard_in(title)
    known = [
        (name, held) for name, held in zip(heard.types, heard.classes, strict=True) if name not in BETA_1_60.events
    ]
    assert known[0] == ("session.created", "SessionCreatedEvent")
    for name, held in known:
        expected = "".join(word.capitalize() for word in name.replace(".", "_").split("_")) + "Event"
        assert held == expected
