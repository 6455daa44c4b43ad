"""What a spoken chat hears and says with: ears, mouths, and which devices are opened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import SimpleNamespace

import pytest

from vivavoce.audio.formats import PCM16_24K
from vivavoce.audio.levels import FLOOR_DB
from vivavoce.cli import voice
from vivavoce.cli.voice import Ear, Mouth, Voice, Wanted, open_voice
from vivavoce.client.player import VirtualPlayer
from vivavoce.errors import EngineMissing, SettingsError
from vivavoce.testing.sounds import silence, tone

STEP = PCM16_24K.bytes_of(20)


def test_g7_speech_ends_with_its_last_loud_sound_not_with_the_silence_behind_it() -> None:
    now = SimpleNamespace(s=100.0)
    sound = tone(400) + silence(300)

    async def source() -> AsyncIterator[bytes]:
        for start in range(0, len(sound), STEP):
            now.s += 0.02
            yield sound[start : start + STEP]

    async def run() -> None:
        ear = Ear(source(), lambda: now.s)
        assert [chunk async for chunk in ear] == [sound[at : at + STEP] for at in range(0, len(sound), STEP)]
        assert ear.level_db == FLOOR_DB
        assert ear.speech_ended_at(0, 700) == pytest.approx(100.4)
        assert ear.speech_ended_at(9_000, 9_500) == now.s, "of what was not heard nothing is known"
        ear.begin_anew()
        assert ear.speech_ended_at(0, 700) == now.s

    asyncio.run(run())


def test_a_muted_ear_hears_silence() -> None:
    async def source() -> AsyncIterator[bytes]:
        yield tone(20)

    async def run() -> None:
        ear = Ear(source(), lambda: 0.0)
        ear.is_muted = True
        assert [chunk async for chunk in ear] == [silence(20)]

    asyncio.run(run())


def test_g5_a_mouth_knows_which_words_were_heard_and_how_loud_it_is() -> None:
    now = SimpleNamespace(s=50.0)
    mouth = Mouth(VirtualPlayer(lambda: now.s), lambda: now.s)
    text = "one two three four "
    assert (mouth.words("a", text, is_whole=True), mouth.level_db, mouth.began_at("a")) == ("", FLOOR_DB, None)
    mouth.play("a", tone(1_000) + silence(1_000), PCM16_24K)
    now.s += 0.5
    assert mouth.words("a", text, is_whole=True) == "one "
    assert mouth.level_db > -30
    assert mouth.began_at("a") == pytest.approx(50.0)
    now.s += 1.0
    assert mouth.words("a", text, is_whole=True) == "one two three "
    assert mouth.level_db == FLOOR_DB
    assert not mouth.is_heard_out("a")
    mouth.stop()
    now.s += 5.0
    assert mouth.is_stopped("a")
    assert mouth.words("a", text, is_whole=True) == "one two three "


class _Device:
    """Opens, and remembers how it was made."""

    made: list[_Device]

    def __init__(self, device: object = None, **settings: object) -> None:
        self.device, self.settings = device, settings
        type(self).made.append(self)

    async def __aenter__(self) -> _Device:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield tone(20)


class _Loudspeaker(_Device):
    made: list[_Device] = []  # noqa: RUF012


class _Microphone(_Device):
    made: list[_Device] = []  # noqa: RUF012


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice, "Loudspeaker", _Loudspeaker)
    monkeypatch.setattr(voice, "Microphone", _Microphone)
    monkeypatch.setattr(voice, "EchoCanceller", lambda: "echo")


def opened(wanted: Wanted) -> Voice:
    async def run() -> Voice:
        async with AsyncExitStack() as stack:
            return await open_voice(wanted, stack)

    return asyncio.run(run())


@pytest.mark.usefixtures("devices")
def test_e1_an_open_loudspeaker_is_kept_out_of_the_microphone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert opened(Wanted(microphone="USB", loudspeaker=3)).notes == []
    speaker, microphone = _Loudspeaker.made[-1], _Microphone.made[-1]
    assert (speaker.device, speaker.settings) == (3, {"echo": "echo"})
    assert (microphone.device, microphone.settings) == ("USB", {"chunk_ms": 20, "gate": None, "echo": "echo"})

    opened(Wanted(has_headphones=True))
    assert _Microphone.made[-1].settings == {"chunk_ms": 20, "gate": None, "echo": None}

    def missing() -> None:
        raise EngineMissing("no echo")

    monkeypatch.setattr(voice, "EchoCanceller", missing)
    (note,) = opened(Wanted()).notes
    assert "--headphones" in note
    assert _Microphone.made[-1].settings["gate"] is _Loudspeaker.made[-1]


@pytest.mark.usefixtures("devices")
def test_e1_a_loudspeaker_that_was_asked_for_is_not_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(device: object, **_: object) -> None:
        raise SettingsError("there is no such device. There are others")

    monkeypatch.setattr(voice, "Loudspeaker", missing)
    monkeypatch.setattr(voice, "isinstance", lambda thing, kind: False, raising=False)
    with pytest.raises(SettingsError, match="no such device"):
        opened(Wanted(loudspeaker="USB"))
    assert opened(Wanted()).notes == ["answers are timed, and not heard: there is no such device"]
