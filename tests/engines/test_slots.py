"""Which slot a conversation gets: its own if it had one, else the one that is idle for longest."""

from __future__ import annotations

import pytest

from vivavoce.engines.chat_lines import Chat, line
from vivavoce.engines.slots import Slots, known_lines


def chat(*texts: str) -> Chat:
    """Instructions, then user and assistant by turns."""
    roles = ("system", "user", "assistant", "user", "assistant", "user")
    return [line(role, text) for role, text in zip(roles, texts, strict=False)]


def used(slots: Slots, *texts: str) -> int:
    slot = slots.take(chat(*texts))
    slots.give_back(slot)
    return slot


def test_a_conversation_goes_on_where_it_was() -> None:
    slots = Slots(3)
    first = {name: used(slots, "Be kind.", name) for name in ("Anna", "Ben", "Cleo")}
    assert sorted(first.values()) == [0, 1, 2]
    for name in ("Cleo", "Anna", "Ben", "Anna"):
        assert used(slots, "Be kind.", name, "Hello!", "More.") == first[name]


def test_what_was_prepared_is_found_and_so_is_a_turn_that_was_heard_differently_at_first() -> None:
    slots = Slots(4)
    own = used(slots, "Be kind.", "Anna", "Hello!")
    used(slots, "Be kind.", "Ben")
    assert used(slots, "Be kind.", "Anna", "Hello!", "Is it lat") == own
    assert used(slots, "Be kind.", "Anna", "Hello!", "Is it late?") == own


def test_the_same_instructions_do_not_make_the_same_conversation() -> None:
    slots = Slots(2)
    anna = used(slots, "Be kind.", "Anna")
    assert used(slots, "Be kind.", "Ben") != anna


def test_the_first_line_is_found_while_it_is_spoken() -> None:
    slots = Slots(3)
    used(slots, "Be kind.", "Good morning")
    own = used(slots, "Be kind.", "Jump the fence and hurry up.")
    assert used(slots, "Be kind.", "Jump the fence and hurry up the bank") == own
    assert used(slots, "Be kind.", "Jump the fence and hurry up the bank.") == own


def test_a_new_one_takes_the_slot_that_was_not_used_for_longest() -> None:
    slots = Slots(3)
    order = [used(slots, "Be kind.", name) for name in "abc"]
    used(slots, "Be kind.", "a", "Yes.", "Go on.")
    assert used(slots, "Be kind.", "new") == order[1]


def test_a_slot_that_is_taken_is_left_alone() -> None:
    slots = Slots(2)
    own = slots.take(chat("Be kind.", "Anna"))
    other = slots.take(chat("Be kind.", "Anna", "Hello!", "More."))
    assert {own, other} == {0, 1}
    with pytest.raises(ValueError, match="empty"):
        slots.take(chat("Be kind.", "Ben"))


@pytest.mark.parametrize(
    ("before", "now", "known"),
    [
        ((), ("Be kind.",), 0),
        (("Be kind.",), ("Be kind.", "Anna"), 1),
        (("Be kind.", "Anna"), ("Be kind.", "Anna"), 2),
        (("Be kind.", "Anna"), ("Be kind.", "Ben"), 0),
        (("Be kind.", "I am"), ("Be kind.", "I am Anna."), 2),
        (("Be kind.", "I am Anna."), ("Be kind.", "I am Ben."), 0),
        (("Be kind.", "I am Anna."), ("Be kind.", "I am Ann, and you?"), 2),
        (("Be kind.", ""), ("Be kind.", "Anna"), 0),
        (("Be kind.", "Anna", "Hello!"), ("Be kind.", "Anna", "Hel", "Stop."), 2),
        (("Be kind.", "Anna", "Hello!", "x"), ("Be kind.", "Anna"), 0),
        (("Be kind.", "a", "A", "b", "B", "c"), ("Be kind.", "b", "B", "c"), 4),
        (("Be kind.", "a", "A", "b", "B", "c"), ("Be kind.", "b", "B", "d", "D", "e"), 3),
        (("Be kind.", "a", "A", "b", "B", "c"), ("Be rude.", "b", "B", "c"), 0),
        (("Be kind.", "a", "A", "b", "B", "c"), ("Be kind.", "x", "X", "c"), 0),
    ],
)
def test_how_much_of_a_conversation_is_known(before: tuple[str, ...], now: tuple[str, ...], known: int) -> None:
    assert known_lines(chat(*before), chat(*now)) == known
