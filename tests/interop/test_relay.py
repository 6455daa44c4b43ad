"""Public clients through `vivavoce relay`: that of the preview before a service that is asked for GA, and today's GA
client before one that is asked for beta.

The service is the same `serve --model scripted` as everywhere here; the relay, a process of its own, asks it for the
dialect that the client does not speak, so that every event is translated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from checks import CHECKS
from conftest import running_command
from conversations import CONVERSATIONS, GA
from environments import run_python
from heard import Heard
from openai_client import OF_THE_PREVIEW, http, plain
from test_openai import hold_with
from test_openai_1_60 import VERSION

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def before_ga(server_url: str) -> Iterator[str]:
    """A relay to the server that asks it for GA."""
    with running_command("relay", "--upstream", http(server_url) + "/v1", "--dialect", "ga", "--port", "0") as url:
        yield url


@pytest.fixture(scope="module")
def before_beta(server_url: str) -> Iterator[str]:
    """A relay to the server that asks it for beta."""
    with running_command("relay", "--upstream", http(server_url) + "/v1", "--dialect", "beta", "--port", "0") as url:
        yield url


@pytest.fixture(scope="module")
def told(before_ga: str) -> dict[str, dict[str, Any]]:
    """What the clients of the preview heard in all conversations."""
    heard: dict[str, dict[str, Any]] = run_python("openai_client.py", before_ga, f"openai[realtime]=={VERSION}")
    return heard


@pytest.fixture(params=["openai", "azure"])
def heard_in(request: pytest.FixtureRequest, told: dict[str, dict[str, Any]]) -> Callable[[str], Heard]:
    """What one of the clients heard in the conversation of this title."""
    return lambda title: Heard(**told[request.param][title])


@pytest.mark.parametrize("title", OF_THE_PREVIEW)
def test_an_old_application_talks_to_a_ga_service(title: str, heard_in: Callable[[str], Heard]) -> None:
    heard = heard_in(title)
    heard.errors = [(code, param, event_id) for code, param, event_id in heard.errors]
    CHECKS[title](heard)
    assert not {name for name in heard.types if name.startswith("response.output_") and "item" not in name}


@pytest.mark.parametrize("title", CONVERSATIONS)
def test_todays_client_talks_to_a_beta_service(title: str, before_beta: str) -> None:
    CHECKS[title](hold_with(plain(before_beta), GA, title))
