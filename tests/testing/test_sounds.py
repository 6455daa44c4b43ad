"""Sounds that can be made again from their names."""

from __future__ import annotations

import pytest

from vivavoce.testing.sounds import silence, sound, tone


def test_a_sound_lasts_as_long_as_it_says() -> None:
    assert len(tone(130)) == 130 * 48
    assert len(silence(20)) == 20 * 48
    assert set(silence(20)) == {0}


def test_a_sound_is_made_again_from_its_description() -> None:
    made = tone(200) + silence(500) + tone(30)
    assert str(made) == "tone 200 ms + silence 500 ms + tone 30 ms"
    assert sound(str(made)) == made


@pytest.mark.parametrize("description", ["", "tone", "noise 20 ms", "tone 20 ms +", "tone 9999999999 ms"])
def test_what_describes_no_sound_is_refused(description: str) -> None:
    with pytest.raises(ValueError, match="describes no sound"):
        sound(description)
