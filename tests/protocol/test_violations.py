"""What the table of complaints does where a frame cannot reach it."""

import msgspec
import pytest

from vivavoce.protocol.base import UNSET, given
from vivavoce.protocol.violations import Vocabulary, dotted, not_supported, violation

NOTHING = Vocabulary((), ())


def test_a_complaint_that_the_table_does_not_know_is_passed_on():
    error = violation(msgspec.ValidationError("Something new - at `$.a[0].b`"), '{"event_id":"e"}', NOTHING)
    assert (error.code, error.message, error.param, error.event_id) == ("invalid_value", "Something new", "a[0].b", "e")
    assert violation(msgspec.ValidationError("Something new"), "{}", NOTHING).param is None


@pytest.mark.parametrize(
    ("supported", "says"),
    [
        ((), "Invalid value: 'x'."),
        (("a",), "Invalid value: 'x'. Supported values are: 'a'."),
        (("a", "b"), "Invalid value: 'x'. Supported values are: 'a' and 'b'."),
        (("a", "b", "c"), "Invalid value: 'x'. Supported values are: 'a', 'b', and 'c'."),
    ],
)
def test_the_supported_values_are_listed(supported, says):
    assert not_supported("x", supported) == says


def test_a_path_is_written_with_dots_and_brackets():
    assert dotted(("item", "content", 0, "type")) == "item.content[0].type"
    assert dotted(()) == ""


def test_given_takes_the_default_for_what_is_absent_alone():
    assert given(UNSET, 5) == 5
    assert given(None, 5) is None
    assert given(0, 5) == 0
