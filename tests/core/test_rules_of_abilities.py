"""What the engines are able to do is passed on to them; what they are not is refused by name (reference §2.1, §2.7)."""

from __future__ import annotations

import pytest

from vivavoce.core.abilities import Abilities
from vivavoce.core.limits import Limits
from vivavoce.core.messages import Generate, GenerationEnded, Opened, Transcribe, TranscriptDelta, TranscriptEnded
from vivavoce.core.session import Session
from vivavoce.core.surroundings import Surroundings
from vivavoce.core.window import IMAGE_TOKENS
from vivavoce.protocol import config as cfg
from vivavoce.protocol.base import UNSET
from vivavoce.protocol.events import (
    ConversationItemCreate,
    ConversationItemDelete,
    InputAudioBufferAppend,
    InputAudioBufferCommit,
    LogProb,
    ResponseCreate,
    ResponseParams,
    SessionUpdate,
)
from vivavoce.protocol.items import InputImage, InputText, Message
from vivavoce.testing.playbook import Expected, Playbook, asks, counting_ids, playbook, sends
from vivavoce.testing.sounds import tone

PNG = "data:image/png;base64,AAAA"
LOGPROBS = ("item.input_audio_transcription.logprobs",)


def machine(*, images: bool = False, reasoning: bool = False, logprobs: bool = False, **limits: int) -> Session:
    able = Abilities(images=images, reasoning=reasoning, logprobs=logprobs, count_tokens=len)
    return Session(
        id="s",
        model="m",
        ids=counting_ids(),
        expires_at=0,
        instructions="",
        limits=Limits(**limits),
        surroundings=Surroundings(abilities=able),
    )


def opened(play: Playbook, **fields: object) -> None:
    play >> Opened() << ...
    play >> update(output_modalities=("text",), **fields) << sends("session.updated")


def update(**fields: object) -> SessionUpdate:
    return SessionUpdate(session=cfg.RealtimeSession(**fields), event_id="mine")  # type: ignore[arg-type]


def create(**params: object) -> ResponseCreate:
    return ResponseCreate(response=ResponseParams(**params), event_id="mine")  # type: ignore[arg-type]


def item(*parts: InputText | InputImage, id: str = "a") -> ConversationItemCreate:
    return ConversationItemCreate(item=Message(id=id, role="user", content=parts), event_id="mine")


def refused(param: str | None, code: str = "invalid_value") -> Expected:
    return sends("error", error={"code": code, "param": param, "event_id": "mine"})


# --- images -----------------------------------------------------------------------------------------------------------


def test_an_image_is_refused_where_the_model_does_not_see() -> None:
    with playbook(machine()) as play:
        opened(play)
        play >> item(InputText(text="this"), InputImage(image_url=PNG)) << refused("item.content[1].type")
        wanted = Message(role="user", content=(InputImage(image_url=PNG),))
        play >> create(input=(wanted,)) << refused("response.input[0].content[0].type")


@pytest.mark.parametrize("url", ["https://example.com/a.png", "data:image/gif;base64,AAAA", "data:image/png,AAAA", ""])
def test_an_image_has_to_be_a_data_uri_of_a_kind_that_models_see(url: str) -> None:
    with playbook(machine(images=True)) as play:
        opened(play)
        play >> item(InputImage(image_url=url)) << refused("item.content[0].image_url")


def test_images_are_shown_to_the_model_and_counted() -> None:
    with playbook(machine(images=True)) as play:
        opened(play)
        image = {"type": "input_image", "image_url": PNG, "detail": "low"}
        play >> item(InputText(text="this"), InputImage(image_url=PNG, detail="low"))
        play << sends("conversation.item.added", item={"content": [{"text": "this"}, image]}) << ...
        play >> ResponseCreate() << ... << asks(Generate, items=[{"content": [{"text": "this"}, image]}])
        play >> GenerationEnded("resp_1", "stop")
        seen = {"text_tokens": 4 + 4 + 4, "image_tokens": IMAGE_TOKENS["low"], "audio_tokens": 0}
        play << sends("response.done", response={"usage": {"input_token_details": seen}})


def test_images_have_a_limit_of_their_own() -> None:
    with playbook(machine(images=True, image_chars_max=2 * len(PNG))) as play:
        opened(play)
        play >> item(InputImage(image_url=PNG), id="a") << ...
        play >> item(InputImage(image_url=PNG), InputImage(image_url=PNG), id="b") << refused(None, "conversation_full")
        play >> item(InputImage(image_url=PNG), id="b") << sends("conversation.item.added") << ...
        play >> item(InputImage(image_url=PNG), id="c") << refused(None, "conversation_full")
        play >> ConversationItemDelete(item_id="a") << ...
        play >> item(InputImage(image_url=PNG), id="c") << sends("conversation.item.added") << ...
        own = Message(role="user", content=(InputImage(image_url=PNG),) * 3)
        play >> create(conversation="none", input=(own,)) << refused(None, "conversation_full")


# --- include ----------------------------------------------------------------------------------------------------------


def test_log_probabilities_are_refused_where_there_are_none() -> None:
    with playbook(machine()) as play:
        opened(play, include=())
        play >> update(include=LOGPROBS) << refused("session.include")
        play >> update(include=None) << sends("session.updated", session={"include": None})


@pytest.mark.parametrize("wanted", [True, False])
def test_log_probabilities_are_told_where_they_are_wanted(wanted: bool) -> None:
    into = cfg.AudioInput(turn_detection=None, transcription=cfg.Transcription(model="m"))
    likely = LogProb(token="one", logprob=-0.5, bytes=[111, 110, 101])
    told = [{"token": "one", "logprob": -0.5}] if wanted else UNSET
    with playbook(machine(logprobs=True)) as play:
        opened(play, include=LOGPROBS if wanted else None, audio=cfg.AudioConfig(input=into))
        play >> InputAudioBufferAppend(audio=tone(200))
        play >> InputAudioBufferCommit() << ... << asks(Transcribe, with_logprobs=wanted)
        kind = "conversation.item.input_audio_transcription"
        play >> TranscriptDelta("item_1", "one", (likely,)) << sends(f"{kind}.delta", logprobs=told)
        play >> TranscriptEnded("item_1") << sends(f"{kind}.completed", transcript="one", logprobs=told)


# --- what the language model is asked with ----------------------------------------------------------------------------


def test_an_effort_is_refused_where_the_model_does_not_reason() -> None:
    effort = cfg.Reasoning(effort="high")
    with playbook(machine()) as play:
        opened(play)
        play >> update(reasoning=effort) << refused("session.reasoning")
        play >> create(reasoning=effort) << refused("response.reasoning")


def test_an_effort_is_passed_on_the_responses_before_the_sessions() -> None:
    with playbook(machine(reasoning=True)) as play:
        opened(play)
        play >> ResponseCreate() << ... << asks(Generate, effort=None)
        play >> GenerationEnded("resp_1", "stop") << ...
        (
            play
            >> update(reasoning=cfg.Reasoning(effort="low"))
            << sends("session.updated", session={"reasoning": {"effort": "low"}})
        )
        play >> ResponseCreate() << ... << asks(Generate, effort="low")
        play >> GenerationEnded("resp_2", "stop") << ...
        play >> create(reasoning=cfg.Reasoning(effort="high")) << ... << asks(Generate, effort="high")


def test_parallel_calls_are_passed_on() -> None:
    with playbook(machine()) as play:
        opened(play)
        play >> ResponseCreate() << ... << asks(Generate, is_parallel=None)
        play >> GenerationEnded("resp_1", "stop") << ...
        play >> update(parallel_tool_calls=False) << sends("session.updated", session={"parallel_tool_calls": False})
        play >> ResponseCreate() << ... << asks(Generate, is_parallel=False)
        play >> GenerationEnded("resp_2", "stop") << ...
        play >> create(parallel_tool_calls=True) << ... << asks(Generate, is_parallel=True)


def test_a_temperature_is_passed_on_and_told_with_the_response() -> None:
    with playbook(machine()) as play:
        opened(play)
        play >> ResponseCreate() << sends("response.created", response={"temperature": UNSET})
        play << asks(Generate, temperature=None)
        play >> GenerationEnded("resp_1", "stop") << ...
        play >> update(temperature=0.7) << sends("session.updated", session={"temperature": 0.7})
        play >> ResponseCreate() << sends("response.created", response={"temperature": 0.7})
        play << asks(Generate, temperature=0.7)
        play >> GenerationEnded("resp_2", "stop") << ...
        play >> create(temperature=0.9) << ... << asks(Generate, temperature=0.9)
