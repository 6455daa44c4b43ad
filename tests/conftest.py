"""Settings for every test: property tests are repeatable here; `--hypothesis-profile=explore` looks for new ways."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# What the witness of conformance is made of, and the browser; each folder is on the path anyway once a test of it is
# collected.
sys.path[:0] = [str(Path(__file__).parent / folder) for folder in ("conformance", "protocol", "interop", "e2e")]
pytest_plugins = ["conformance_witness"]

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

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So it is in what a shell has put into the background, and whatever is started here would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: a process for each core, hyperthreads included."""
    return os.cpu_count() or 1


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What is logged may be no text (a lone surrogate), and a report that goes to another process has to be."""
    report = yield
    report.sections = [(name, text.encode(errors="replace").decode()) for name, text in report.sections]
    return report


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-traces", action="store_true", help="write the golden traces anew instead of comparing")
