"""Settings for every test: property tests are repeatable here; `--hypothesis-profile=explore` looks for new ways."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, print_blob=True)
settings.register_profile(
    "explore",
    deadline=None,
    database=None,
    print_blob=True,
    max_examples=1_000,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("repeatable")
