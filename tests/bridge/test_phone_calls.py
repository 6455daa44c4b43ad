"""What happens in a call beside talk: beginnings, keys, hang-ups from either side, and what the model is told of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from phone_house import VAD, House, ask, on_the_phone, tone, words_heard

import vivavoce
from vivavoce.bridge.phone import PhoneOptions, carry, in_process, ticket_for
from vivavoce.bridge.phone.messages import Clear, Mark, Media, Other, parse
from vivavoce.bridge.phone.twilio import TICKET
from vivavoce.engines import Prompt
from vivavoce.engines.scripted import Call as Calls
from vivavoce.engines.scripted.answering import Answer
from vivavoce.errors import ConnectionFailed, LocalProtocolError, RemoteProtocolError
from vivavoce.protocol.items import FunctionCallOutput, InputText, Message
from vivavoce.testing.phone_call import PhoneCall, PhoneWeather
from vivavoce.testing.virtual_time import run
from vivavoce.transports import Transport
from vivavoce.transports.memory import pair

TOKEN = "the token of the account"
GOODBYE = "Goodbye, and thank you for your call."


def echo(prompt: Prompt) -> Answer:
    return (f"That is {len(prompt.items)} so far.",)


def part(prompt: Prompt) -> Answer:
    """Says goodbye and hangs up; where that did not happen, asks why."""
    if prompt.items and isinstance(prompt.items[-1], FunctionCallOutput):
        return ("I am still here.",)
    return (GOODBYE, Calls("hang_up", "{}"))


# --- beginnings -------------------------------------------------------------------------------------------------------


def test_the_model_is_told_who_calls_and_speaks_first_where_it_shall() -> None:
    async def main() -> None:
        house = House(lambda prompt: ("Hello, who is there?",))
        async with on_the_phone(house, greeting="Greet the caller.") as line:
            await line.answered(1)
            (spell,) = line.phone.spells
            assert len(spell.audio) == len("Hello, who is there?") * 60 * 8
        (prompt,) = house.prompts
        assert prompt.instructions == "Greet the caller."
        (known,) = [item for item in prompt.items if isinstance(item, Message)]
        assert known.role == "system"
        (content,) = known.content
        assert isinstance(content, InputText)
        about = json.loads(content.text.partition("instruction): ")[2])
        assert about == {"from": "+15550001111", "to": "+15552223333"}

    run(main())


def test_the_session_speaks_mu_law_and_what_it_gets_is_what_the_phone_said() -> None:
    async def main() -> None:
        house = House()
        async with on_the_phone(house) as line:
            assert line.session.session is not None
            stated = msgspec.to_builtins(line.session.session)["audio"]
            assert stated["input"]["format"] == stated["output"]["format"] == {"type": "audio/pcmu"}
            said = ask()
            line.phone.say(said)
            await line.answered(1)
            (user,) = [view for view in line.session.get_items() if view.role == "user"]
            assert said in user.audio

    run(main())


def test_what_goes_out_is_the_audio_of_the_session_byte_by_byte() -> None:
    async def main() -> None:
        house = House()
        async with on_the_phone(house) as line:
            line.phone.say(ask())
            await line.answered(1)
            (answer,) = [view for view in line.session.get_items() if view.role == "assistant"]
            assert line.phone.heard == answer.audio

    run(main())


@pytest.mark.parametrize(("format", "law"), [("pcm", None), ("pcma", "alaw")])
def test_an_endpoint_without_mu_law_is_converted_for(format: Any, law: str | None) -> None:
    async def main() -> None:
        house = House()
        async with on_the_phone(house, format=format) as line:
            line.phone.say(ask())
            await line.answered(1)
            user, answer = (view for view in line.session.get_items() if view.role in ("user", "assistant"))
            assert answer.text.startswith("echo: audio of ")
            heard_ms, said_ms = len(line.phone.heard) / 8, answer.audio_ms
            assert abs(heard_ms - said_ms) <= 1  # the converter has given back all that it held
            assert len(line.phone.spells) == 1
            assert user.text.startswith("audio of ")

    run(main())


def test_a_converted_answer_is_cut_where_it_was_heard() -> None:
    async def main() -> None:
        house = House(lambda prompt: ("word " * 40,))
        async with on_the_phone(house, format="pcm") as line:
            line.phone.say(ask())
            await line.phone.until(lambda: line.phone.spells)
            await asyncio.sleep(2)
            line.phone.say(tone(200))
            await line.phone.until(lambda: line.phone.clears_s[1:] and not line.phone.is_playing)
            spell = line.phone.spells[0]
            answer = next(view for view in line.session.get_items() if view.role == "assistant")
            assert abs(answer.audio_ms - len(spell.audio) / 8) <= 200  # what a resampler holds back
            assert answer.is_truncated

    run(main())


def test_a_session_that_cannot_be_opened_ends_the_call(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async def dial(headers: Any) -> Transport:
            raise ConnectionFailed("nobody is there")

        near, far = pair()
        options = PhoneOptions(connect=lambda **how: vivavoce.connect(dial=dial, reconnect=False, **how))
        async with PhoneCall(near) as phone:
            call = await carry(far, options)
            await phone.until(lambda: phone.closed)
        assert call.ended == "failed"
        assert "nobody is there" in caplog.text

    run(main())


# --- hang-ups ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weather", [PhoneWeather(), PhoneWeather(delay_s=0.2, jitter_s=0.05)])
def test_the_model_hangs_up_when_its_goodbye_was_heard(weather: PhoneWeather) -> None:
    async def main() -> None:
        house = House(part)
        async with on_the_phone(house, weather) as line:
            line.phone.say(ask())
            await line.phone.until(lambda: line.phone.closed)
            assert line.phone.closed is not None
            assert line.phone.closed.code == 1000
            assert len(line.phone.heard) == len(GOODBYE) * 60 * 8
        call = await line.carrying
        assert call.ended == "hang_up"
        assert len(house.prompts) == 1, "nobody was asked to speak to a line that is dead"

    run(main())


def test_who_speaks_into_the_goodbye_is_not_hung_up_on() -> None:
    async def main() -> None:
        house = House(part)
        async with on_the_phone(house) as line:
            line.phone.say(ask())
            await line.phone.until(lambda: line.phone.spells)
            line.phone.say(tone(400))
            await line.phone.until(lambda: len(house.prompts) >= 2)
            assert line.phone.closed is None
            output = [item for item in house.prompts[1].items if isinstance(item, FunctionCallOutput)]
            assert "error" in output[0].output
            await line.phone.until(lambda: line.phone.spells[1:])

    run(main())


def test_the_caller_hangs_up_and_the_session_is_over() -> None:
    """And says no more than the caller has heard."""

    async def main() -> None:
        house = House(lambda prompt: (GOODBYE,))
        async with on_the_phone(house) as line:
            line.phone.say(ask())
            await line.phone.until(lambda: line.phone.is_playing)
            await asyncio.sleep(0.7)
            line.phone.hang_up()
            call = await line.carrying
            assert call.ended == "caller"
            (answer,) = [view for view in line.session.get_items() if view.role == "assistant"]
            assert answer.text == words_heard(GOODBYE, 720)
            assert not line.session.is_connected
            assert len(house.sessions) == 0

    run(main())


def test_a_line_that_breaks_ends_the_session() -> None:
    async def main() -> None:
        house = House()
        near, far = pair()
        carrying = asyncio.create_task(carry(far, PhoneOptions(connect=house.connect)))
        async with PhoneCall(near) as phone:
            await phone.until(lambda: house.opened and house.opened[0].is_connected)
            await near.close(1006)
            assert (await carrying).ended == "caller"

    run(main())


def test_the_end_of_the_session_ends_the_call_when_all_was_heard() -> None:
    async def main() -> None:
        house = House(lambda prompt: (GOODBYE,))
        async with on_the_phone(house) as line:
            line.phone.say(ask())
            await line.phone.until(lambda: "response.done" in [event.type for event in line.told])
            assert line.phone.is_playing
            house.sessions.stop()
            await line.phone.until(lambda: line.phone.closed)
            assert len(line.phone.heard) == len(GOODBYE) * 60 * 8
            assert (await line.carrying).ended == "session"

    run(main())


def test_an_application_hangs_up() -> None:
    async def main() -> None:
        house = House(lambda prompt: (GOODBYE,))
        async with on_the_phone(house, has_hang_up=False) as line:
            assert not msgspec.to_builtins(line.session.session)["tools"]
            line.phone.say(ask())
            await line.phone.until(lambda: "response.done" in [event.type for event in line.told])
            call = line.session.context
            call.hang_up()
            assert (await line.carrying) is call
            assert call.ended == "hang_up"
            assert len(line.phone.heard) == len(GOODBYE) * 60 * 8

    run(main())


def test_marks_that_never_come_do_not_hold_the_end_up() -> None:
    """A provider that knows no marks: the clock alone says what was heard."""

    async def main() -> None:
        house = House(lambda prompt: (GOODBYE,))
        near, far = pair()
        carrying = asyncio.create_task(carry(Markless(far), PhoneOptions(connect=house.connect, greeting="Hello")))
        async with PhoneCall(near) as phone:
            await phone.until(lambda: phone.is_playing)
            house.opened[0].context.hang_up()
            await phone.until(lambda: phone.closed)
            assert len(phone.heard) == len(GOODBYE) * 60 * 8
            assert (await carrying).ended == "hang_up"

    run(main())


class Markless:
    """A transport on which no mark ever comes back."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.send, self.close = transport.send, transport.close

    async def receive(self) -> str | bytes:
        while isinstance(parse(frame := await self._transport.receive()), Mark):
            pass
        return frame


def test_a_connection_that_is_lost_is_mended_under_the_call() -> None:
    async def main() -> None:
        house = House()
        lines: list[Transport] = []
        inner = in_process(house.sessions)

        async def dial(headers: Any) -> Transport:
            lines.append(await inner(headers))
            return lines[-1]

        def connect(**how: Any) -> vivavoce.Session:
            session = vivavoce.connect(dial=dial, **how)
            session.update_session(turn_detection=VAD)
            session.on("*", told.append)
            house.opened.append(session)
            return session

        told: list[Any] = []
        async with on_the_phone(house, connect=connect) as line:
            line.told = told
            line.phone.say(ask())
            await line.answered(1)
            await lines[0].close(1006)
            line.phone.say(ask())
            await line.answered(2)
            assert len(lines) == 2
            assert len(line.phone.spells) == 2

    run(main())


# --- keys -------------------------------------------------------------------------------------------------------------


def test_keys_are_events_of_the_api_and_the_model_is_told_where_it_shall() -> None:
    async def main() -> None:
        house = House(echo)
        async with on_the_phone(house, PhoneWeather(jitter_s=0.1, is_shuffled=True), tells_keys=True) as line:
            for key in "12*#":
                line.phone.press(key)
            await line.answered(1)
            line.phone.press("7")
            await line.answered(2)
            keys = [event for event in line.told if event.type == "input_audio_buffer.dtmf_event_received"]
            assert [(event.event, event.received_at) for event in keys] == [(key, 1_000) for key in "12*#7"]
            said = [view.text for view in line.session.get_items() if view.role == "user"]
            assert said == ["[keys pressed on the phone: 12*#]", "[keys pressed on the phone: 7]"]

    run(main())


def test_keys_change_nothing_by_themselves() -> None:
    async def main() -> None:
        house = House(echo)
        async with on_the_phone(house) as line:
            line.phone.press("5")
            await asyncio.sleep(5)
            assert [event.event for event in line.told if "dtmf" in event.type] == ["5"]
            assert not house.prompts

    run(main())


# --- who is let in, and what is no stream -----------------------------------------------------------------------------


@pytest.mark.parametrize("ticket", ["", "guessed", ticket_for(TOKEN, "CA" + "2" * 32)])
def test_a_stream_without_the_ticket_of_its_call_is_refused(ticket: str) -> None:
    async def main() -> None:
        near, far = pair()
        options = PhoneOptions(connect=never, auth_token=TOKEN)
        async with PhoneCall(near, parameters={TICKET: ticket}) as phone:
            with pytest.raises(RemoteProtocolError, match="without the ticket"):
                await carry(far, options)
            await phone.until(lambda: phone.closed)
            assert phone.closed is not None
            assert phone.closed.code == 1008

    run(main())


def test_the_ticket_lets_in_and_is_told_to_nobody() -> None:
    async def main() -> None:
        near, far = pair()
        house = House()
        options = PhoneOptions(connect=house.connect, auth_token=TOKEN)
        ticket = ticket_for(TOKEN, "CA" + "1" * 32)
        carrying = asyncio.create_task(carry(far, options))
        async with PhoneCall(near, parameters={TICKET: ticket, "from": "+15550001111"}) as phone:
            await phone.until(lambda: house.opened and house.opened[0].is_connected)
        call = await carrying
        assert call.parameters == {"from": "+15550001111"}
        assert ticket not in str([view.text for view in house.opened[0].get_items()])
        assert TOKEN not in repr(options)

    run(main())


def never(**how: Any) -> vivavoce.Session:
    raise AssertionError("nobody was to be connected")


@pytest.mark.parametrize(
    "frames",
    [
        ["no JSON"],
        ['{"event":"connected"}', '{"event":"media","sequenceNumber":"1","media":{"payload":"AAAA"}}'],
        ['{"event":"connected"}', '{"event":"start","sequenceNumber":"1","start":{}}'],
        ['{"event":"connected"}', '{"event":"start","sequenceNumber":"one","start":{"callSid":"CA1"}}'],
        ['{"event":"connected"}'] * 30,
    ],
)
def test_what_is_no_stream_is_refused(frames: list[str]) -> None:
    async def main() -> None:
        near, far = pair()
        for frame in frames:
            await near.send(frame.encode())
        with pytest.raises(RemoteProtocolError):
            await carry(far, PhoneOptions(connect=never))

    run(main())


def test_a_stream_that_says_nothing_is_given_up() -> None:
    async def main() -> None:
        _, far = pair()
        with pytest.raises(RemoteProtocolError, match="within 10 s"):
            await carry(far, PhoneOptions(connect=never))

    run(main())


def test_a_broken_message_ends_the_call_and_one_of_another_kind_does_not(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        house = House()
        async with on_the_phone(house) as line:
            line.phone._send(Other(sequence_number=line.phone._next(), stream_sid=line.phone.stream_sid))
            line.phone.say(ask())
            await line.answered(1)
            await line.phone._transport.send(b'{"event":"media","media":{"payload":"not base64!"}}')
            assert (await line.carrying).ended == "caller"
        assert "media that Twilio would not send" in caplog.text

    run(main())


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "field"), [({"format": "opus"}, "format"), ({"calls_max": 0}, "calls_max")])
def test_options_that_cannot_be(how: dict[str, Any], field: str) -> None:
    with pytest.raises(LocalProtocolError, match=field):
        PhoneOptions(connect=never, **how)


def test_what_goes_out_is_what_twilio_takes() -> None:
    """To the letter: nothing but the three kinds, and no field that Twilio does not name."""

    async def main() -> None:
        near, far = pair()
        house = House(lambda prompt: (GOODBYE,))
        seen: list[dict[str, Any]] = []

        class Seen:
            def __init__(self) -> None:
                self.receive, self.close = far.receive, far.close

            async def send(self, message: bytes) -> None:
                seen.append(json.loads(message))
                await far.send(message)

        carrying = asyncio.create_task(carry(Seen(), PhoneOptions(connect=house.connect)))
        async with PhoneCall(near) as phone:
            phone.say(ask())
            await phone.until(lambda: phone.spells)
            await phone.until(lambda: not phone.is_playing)
        await carrying
        kinds = {one["event"] for one in seen}
        assert kinds == {"media", "mark", "clear"}
        fields = {"media": {"payload"}, "mark": {"name"}, "clear": set()}
        for one in seen:
            assert set(one) - {one["event"]} == {"event", "streamSid"}
            assert one["streamSid"] == phone.stream_sid
            assert set(one.get(one["event"], {})) == fields[one["event"]]
        assert isinstance(parse(json.dumps(seen[0])), Clear | Mark | Media)

    run(main())
