from __future__ import annotations

import json
import subprocess
import sys

HEAVY = {
    "numpy",
    "scipy",
    "onnxruntime",
    "ctranslate2",
    "torch",
    "aiortc",
    "soxr",
    "sounddevice",
    "starlette",
    "uvicorn",
    "httpx",
}
FOR_DIALLING = {"picows", "python_socks", "aiofastnet", "vivavoce.transports.websocket"}
OF_SERVERS = {
    "vivavoce.protocol.codec",
    "vivavoce.protocol.violations",
    "vivavoce.protocol.leniency",
    "vivavoce.protocol.translation",
    "vivavoce.protocol.dialects",
    "vivavoce.core.session",
    "vivavoce.server",
    "vivavoce.engines",
}


def modules_after(statement: str) -> set[str]:
    program = f"import json, sys; {statement}; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(out.stdout))


def test_importing_the_package_loads_nothing() -> None:
    loaded = modules_after("import vivavoce")
    assert not loaded & (HEAVY | FOR_DIALLING | OF_SERVERS | {"msgspec", "asyncio"})


def test_importing_the_client_loads_no_engine_no_server_and_no_network() -> None:
    loaded = modules_after("from vivavoce import connect, events, items, config, Conversation")
    assert "msgspec" in loaded
    assert not loaded & (HEAVY | FOR_DIALLING | OF_SERVERS)


def test_a_session_that_is_not_open_yet_has_no_need_of_a_network() -> None:
    loaded = modules_after("from vivavoce import connect; connect('m', url='ws://127.0.0.1:1/v1', api_key='k')")
    assert not loaded & (HEAVY | FOR_DIALLING | OF_SERVERS)


def test_what_dials_is_loaded_by_what_dials() -> None:
    assert modules_after("import vivavoce.transports.websocket") >= FOR_DIALLING


def test_a_codec_of_clients_loads_nothing_of_servers_and_no_beta() -> None:
    loaded = modules_after('from vivavoce.protocol.client_codec import ClientCodec as C; C().decode(\'{"type":"x"}\')')
    assert not loaded & OF_SERVERS


def test_every_public_name_is_listed_and_there() -> None:
    import vivavoce

    assert set(vivavoce.__all__) == {*vivavoce._HOMES, *vivavoce._MODULES}
    assert all(getattr(vivavoce, name) is not None for name in vivavoce.__all__)
    assert vivavoce.__all__ == sorted(vivavoce.__all__)
