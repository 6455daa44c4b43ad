"""The schema as its annotations say it."""

from __future__ import annotations

from typing import Literal, get_args

from vivavoce.protocol.shapes import members


def test_the_order_of_values_is_that_of_the_annotation_whatever_was_looked_at_before() -> None:
    for kind in (Literal["text", "audio"], Literal["audio", "text"]):  # equal to each other, as Python sees them
        assert get_args(members(kind)[0]) == get_args(kind)
