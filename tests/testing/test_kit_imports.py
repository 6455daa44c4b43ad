"""The test kit costs no more to import than the package does: nothing heavy comes with it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

KIT = ("checks", "faults", "matching", "playbook", "record", "referee", "rehearsal", "sounds", "traces", "virtual_time")
HEAVY = {"numpy", "scipy", "onnxruntime", "ctranslate2", "torch", "aiortc", "soxr", "starlette", "uvicorn", "httpx"}


def test_the_kit_loads_nothing_heavy() -> None:
    imports = ", ".join(f"vivavoce.testing.{module}" for module in KIT)
    program = f"import json, sys, {imports}; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(out.stdout)}
    assert "vivavoce" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize("module", ["vivavoce.server", "vivavoce.testing.real_server"])
@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_without_the_packages_of_a_server_it_says_what_to_install(module: str, missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; import {module}"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False).stderr
    last = said.strip().splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: a server needs more packages: pip install 'vivavoce[server]'"), said
    assert f"(no module '{missing}" in last
