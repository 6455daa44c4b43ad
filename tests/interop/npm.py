"""Conversations through the npm package `openai`: a Node program carries what `conversations.py` decides."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Sequence

from conversations import Conversation, Event
from heard import Heard

SECONDS_MAX = 60
STOP_SECONDS_MAX = 10


def hold(command: Sequence[str], env: dict[str, str], conversation: Conversation) -> Heard:
    """Hold the conversation through a program that takes client events and gives server events, one a line."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env
    ) as process:
        alarm = threading.Timer(SECONDS_MAX, process.kill)
        alarm.start()
        try:
            heard = _hold(process, conversation)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(STOP_SECONDS_MAX) == 0
            return heard
        finally:
            alarm.cancel()
            process.kill()


def _hold(process: subprocess.Popen[str], conversation: Conversation) -> Heard:
    assert process.stdin is not None
    heard = Heard()
    step = next(conversation)
    try:
        while True:
            if step is None:
                step = conversation.send(_take(heard, process))
            else:
                process.stdin.write(json.dumps({"type": step.type, **step.fields}) + "\n")
                process.stdin.flush()
                step = next(conversation)
    except StopIteration:
        return heard


def _take(heard: Heard, process: subprocess.Popen[str]) -> Event:
    assert process.stdout is not None
    frame = process.stdout.readline()
    assert frame.startswith("{"), f"the client stopped: {frame}{process.stdout.read()}"
    event: Event = json.loads(frame)
    heard.take(event, "", frame)
    return event
