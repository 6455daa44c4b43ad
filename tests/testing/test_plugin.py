"""The pytest plugin: it weighs nothing where it is not used, and its fixtures are what the documentation says."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from vivavoce.testing.checks import assert_said
from vivavoce.testing.plugin import MARKER
from vivavoce.testing.real_server import RealServer

pytest_plugins = ["pytester"]

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "test-your-app.md"
STRICT = ("-W", "error", "--strict-markers", "-p", "no:cacheprovider")


def test_the_plugin_is_found_by_pytest(pytestconfig: pytest.Config) -> None:
    (entry,) = (entry for entry in entry_points(group="pytest11") if entry.name == "vivavoce")
    assert entry.value == "vivavoce.testing.plugin"
    assert pytestconfig.pluginmanager.has_plugin("vivavoce")
    assert MARKER in pytestconfig.getini("markers")


def test_the_plugin_loads_nothing_where_it_is_not_used(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_what_is_loaded():
            of_ours = {name for name in sys.modules if name.partition(".")[0] == "vivavoce"}
            assert of_ours == {"vivavoce", "vivavoce.testing", "vivavoce.testing.plugin"}
            assert not {"msgspec", "numpy", "starlette", "uvicorn", "websockets"} & set(sys.modules)
        """
    )
    pytester.runpytest_subprocess(*STRICT).assert_outcomes(passed=1)


def program_of_the_page() -> str:
    text = PAGE.read_text("utf-8")
    (program,) = re.findall(r"^```python\n# test_my_app\.py\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return str(program)


def test_the_page_shows_tests_that_pass(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_my_app=program_of_the_page())
    pytester.runpytest_subprocess(*STRICT).assert_outcomes(passed=2)


def test_they_find_what_an_application_does_wrong(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_my_app=program_of_the_page().replace('"call_id": item.call_id', '"call_id": "of nobody"'))
    result = pytester.runpytest_subprocess(*STRICT)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*expected no errors:*"])


def test_every_method_of_the_page_is_one() -> None:
    page = PAGE.read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)\(", page, re.MULTILINE)
    from vivavoce.testing import checks

    assert len(rows) > 15
    assert [name for name in rows if not hasattr(RealServer, name) and name not in checks.__all__] == []


@pytest.mark.realtime(answers=["Hello."], hears=["Hi."], pace=2, settings={"sessions_max": 1})
def test_a_marker_says_how_the_server_begins(realtime_server: RealServer) -> None:
    assert realtime_server.script.unused == (1, 1)
    assert realtime_server.script.behaviour.language_model.first_delay_s > 0


def test_every_test_has_a_server_of_its_own(realtime_server: RealServer) -> None:
    assert realtime_server.script.unused == (0, 0)
    assert realtime_server.messages == ()
    with pytest.raises(AssertionError, match="was not said"):
        assert_said(realtime_server, "hello")


def test_a_test_may_have_several_servers(
    realtime_server: RealServer, realtime_server_factory: Callable[..., RealServer]
) -> None:
    other = realtime_server_factory(api_key=None)
    assert other.url != realtime_server.url


def test_what_the_marker_does_not_know_is_told(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.realtime(answer="Hello.")
        def test_it(realtime_server):
            pass
        """
    )
    result = pytester.runpytest_subprocess(*STRICT)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*expected @pytest.mark.realtime(answers=*"])


def test_what_is_not_installed_is_told(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("import sys; sys.modules['starlette'] = None")
    pytester.makepyfile("def test_it(realtime_server): pass")
    result = pytester.runpytest_subprocess(*STRICT)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*pip install 'vivavoce?server?'*"])
