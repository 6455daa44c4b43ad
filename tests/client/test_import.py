from __future__ import annotations

import json
import subprocess
import sys

HEAVY = {"numpy", "scipy", "onnxruntime", "ctranslate2", "torch", "aiortc", "soxr", "starlette", "uvicorn", "httpx"}


def modules_after(statement: str) -> set[str]:
    program = f"import json, sys; {statement}; print(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(out.stdout))


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not modules_after("import vivavoce") & (HEAVY | {"msgspec", "picows", "asyncio"})


def test_using_the_client_loads_no_engine_and_no_server() -> None:
    loaded = modules_after("from vivavoce import connect, events, items, config, Conversation")
    assert "picows" in loaded
    assert not loaded & HEAVY
