"""The test kit costs no more to import than the package does: nothing heavy comes with it."""

from __future__ import annotations

import json
import subprocess
import sys

KIT = ("checks", "faults", "matching", "playbook", "record", "referee", "rehearsal", "sounds", "traces", "virtual_time")
HEAVY = {"numpy", "scipy", "onnxruntime", "ctranslate2", "torch", "aiortc", "soxr", "starlette", "uvicorn", "httpx"}


def test_the_kit_loads_nothing_heavy() -> None:
    imports = ", ".join(f"vivavoce.testing.{module}" for module in KIT)
    program = f"import json, sys, {imports}; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(out.stdout)}
    assert "vivavoce" in loaded
    assert not loaded & HEAVY
