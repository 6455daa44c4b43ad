"""Small ONNX networks that run on the event loop: loaded on one thread, tried once, never half loaded.

For engines whose step takes under a millisecond; several threads would only wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vivavoce.engines.weights import library
from vivavoce.errors import EngineError


def loaded(engine: str, path: Path, try_once: Callable[[Any], object]) -> Any:
    """The network in the file, once `try_once` has run it. Raises `EngineMissing`, or `EngineError` for a bad file."""
    onnxruntime = library("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        network = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        try_once(network)
    except Exception as error:  # onnxruntime has an exception class for each status code
        raise EngineError(f"{engine}: {path} cannot be used: {error}", code="engine_load_failed") from error
    return network
