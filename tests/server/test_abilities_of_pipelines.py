"""What a session may ask of its engines, as the server reads it from them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vivavoce.engines import Pipeline
from vivavoce.engines.scripted import ScriptedIncrementalTranscriber, scripted_pipeline
from vivavoce.server.surroundings import abilities


class Reluctant(ScriptedIncrementalTranscriber):
    hears_along = False


@pytest.mark.parametrize(
    ("pipeline", "hears_along"),
    [
        (scripted_pipeline(), False),
        (replace(scripted_pipeline(), transcriber=ScriptedIncrementalTranscriber()), True),
        (replace(scripted_pipeline(), transcriber=Reluctant()), False),
    ],
)
def test_who_hears_along(pipeline: Pipeline, hears_along: bool) -> None:
    assert abilities(pipeline).hears_along is hears_along
