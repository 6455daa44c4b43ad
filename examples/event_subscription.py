"""A script that subscribes to events, connects, asks, and disconnects; what happens is shown as it happens.

uv run vivavoce serve                              # in one terminal; with --model scripted for one without models
uv run python examples/event_subscription.py       # in another: answers are blue, errors are red
uv run python examples/event_subscription.py wss://api.openai.com/v1      # with OPENAI_API_KEY
"""

import sys

import vivavoce
from vivavoce import events, items, sync

URL = "http://127.0.0.1:8080/v1"
QUESTIONS = ("Hello. Why is the sun so bright?", "I do not understand that. Can you say it more simply?")
RED, GREEN, BLUE, PLAIN = "\033[31m", "\033[32m", "\033[34m", "\033[0m"


def show(text: str, color: str, end: str = "\n") -> None:
    print(f"{color}{text}{PLAIN}", end=end, flush=True)


def subscribe(session: sync.Session) -> None:
    """Say what is done with which events; it is done in the background, whatever the script does meanwhile."""

    @session.on("session.created")
    def greet(event: events.SessionCreated) -> None:
        show(f"Connected (session {event.session.id})", GREEN)

    @session.on("error")
    def complain(event: events.ErrorEvent) -> None:
        show(f"Error: {event.error.message}", RED)

    session.on("response.output_text.delta", lambda event: show(event.delta, BLUE, end=""))
    session.on("response.done", lambda event: print())


def main(url: str = URL) -> None:
    session = sync.connect("gpt-realtime", url=url)
    subscribe(session)
    session.update_session(instructions="You talk to a child. Take easy words.", modality="text")
    session.connect()
    try:
        for question in QUESTIONS:
            session.create_item(items.user_message(question))
            session.create_response().done()
    finally:
        session.disconnect()  # also where it has gone wrong, or ended by itself


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except vivavoce.VivavoceError as error:
        raise SystemExit(str(error)) from None
