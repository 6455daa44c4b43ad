"""The sound devices of this machine, through PortAudio: which there are, how one is chosen, how a stream is opened.

What loudspeaker and microphone have in common. `SoundLibrary` is what is used of the module `sounddevice` (of the extra
`mic`), so that tests can put another in its place. PortAudio converts rates on most machines; where it does not, the
stream is opened as the device has it, and whoever opened it converts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, Literal, Protocol, cast

from vivavoce.errors import EngineError, EngineMissing, SettingsError

__all__ = ["Device", "SoundLibrary", "devices"]

Kind = Literal["input", "output"]
Latency = float | Literal["low", "high"]

RATE_HZ: Final = 24_000
CHANNELS_MAX: Final = 2  # some devices cannot do mono, and then both sides get the same
_INSTALL: Final = 'pip install "vivavoce[mic]"'


class Times(Protocol):
    """When the first sample of a block is heard or was recorded, on the clock of its stream, in seconds."""

    outputBufferDacTime: float


class Stream(Protocol):
    """An open stream of a device."""

    active: bool
    time: float
    latency: float

    def start(self) -> None: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...


class SoundLibrary(Protocol):
    """What is used of `sounddevice`."""

    PortAudioError: type[Exception]

    def query_devices(self, device: int | None = None, kind: Kind | None = None) -> Any: ...
    def RawOutputStream(self, **settings: Any) -> Stream: ...
    def RawInputStream(self, **settings: Any) -> Stream: ...


@dataclass(frozen=True, slots=True)
class Device:
    """A sound device as PortAudio sees it. `inputs` and `outputs` are channels, `rate_hz` is its own rate."""

    index: int
    name: str
    inputs: int
    outputs: int
    rate_hz: int
    host: int = 0
    """The number of the system's interface to it: the same device may be there by several."""

    def channels(self, kind: Kind) -> int:
        """How many channels it has in this direction."""
        return self.inputs if kind == "input" else self.outputs


def sound_library() -> SoundLibrary:
    """The module `sounddevice`. Raises `EngineMissing` where it or the PortAudio library is not installed."""
    try:
        return cast(SoundLibrary, import_module("sounddevice"))
    except ImportError as error:
        raise EngineMissing(f"sound devices need the package sounddevice ({error}): {_INSTALL}") from error
    except OSError as error:
        raise EngineMissing(
            f"sound devices need the PortAudio library ({error}): on Debian and Ubuntu apt-get install libportaudio2, "
            "elsewhere the package portaudio of the system; on macOS and Windows it comes with sounddevice"
        ) from error


def import_numeric() -> None:
    """Raises `EngineMissing` where the packages are missing that convert what devices take and give."""
    for package in ("numpy", "soxr"):
        try:
            import_module(package)
        except ImportError as error:
            raise EngineMissing(f"sound devices need the package {package} ({error}): {_INSTALL}") from error


def devices(kind: Kind | None = None, *, sound: SoundLibrary | None = None) -> tuple[Device, ...]:
    """The sound devices of this machine, those that can be recorded from ("input") or played on ("output").

    Raises `EngineMissing` without sounddevice or PortAudio.
    """
    found = map(_device, (sound or sound_library()).query_devices())
    return tuple(device for device in found if kind is None or device.channels(kind))


def _device(description: Mapping[str, Any]) -> Device:
    return Device(
        index=int(description["index"]),
        name=str(description["name"]),
        inputs=int(description["max_input_channels"]),
        outputs=int(description["max_output_channels"]),
        rate_hz=round(float(description["default_samplerate"])),
        host=int(description.get("hostapi", 0)),
    )


def choose(sound: SoundLibrary, wanted: int | str | None, kind: Kind) -> Device:
    """The device of this index, or with this in its name (in any case), or the system's own choice for None.

    Raises `SettingsError`, which lists what there is.
    """
    there = devices(kind, sound=sound)
    if wanted is None:
        try:
            return _device(sound.query_devices(kind=kind))
        except (sound.PortAudioError, ValueError) as error:
            raise SettingsError(f"the system names no {kind} device. {_list(there, kind)}") from error
    if isinstance(wanted, int):
        matches = [device for device in there if device.index == wanted]
    else:
        matches = _named(wanted, there)
    if len(matches) != 1:
        problem = "is none" if not matches else "could be " + " or ".join(str(device.index) for device in matches)
        raise SettingsError(f"device={wanted!r} {problem} of the {kind} devices. {_list(there, kind)}")
    return matches[0]


def _named(wanted: str, there: Sequence[Device]) -> list[Device]:
    exact = [device for device in there if device.name.lower() == wanted.lower()]
    matches = exact or [device for device in there if wanted.lower() in device.name.lower()]
    return [device for device in matches if device.host == matches[0].host]


def _list(there: Sequence[Device], kind: Kind) -> str:
    if not there:
        return f"This machine has no {kind} device that PortAudio can see."
    return f"Give an index or a part of the name: {'; '.join(f'{device.index}: {device.name}' for device in there)}"


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream that is open but not started, and how its samples lie."""

    stream: Stream
    device: Device
    rate_hz: int
    channels: int


def open_stream(
    sound: SoundLibrary,
    device: Device,
    kind: Kind,
    *,
    rate_hz: int | None,
    block_ms: int,
    latency: Latency,
    callback: Callable[[Any, int, Times, Any], None],
    finished: Callable[[], None] | None = None,
) -> Opened:
    """Open a device for PCM16: mono at 24 kHz where it can, else as it can. Raises `EngineError` where it cannot.

    `callback` and `finished` are called on a thread of the device's own; `finished` also where the device is lost.
    """
    make = sound.RawInputStream if kind == "input" else sound.RawOutputStream
    problem: Exception | None = None
    for rate, channels in _layouts(device, kind, rate_hz):
        try:
            stream = make(
                samplerate=rate,
                channels=channels,
                device=device.index,
                dtype="int16",
                blocksize=rate * block_ms // 1000,
                latency=latency,
                callback=callback,
                finished_callback=finished,
            )
        except (sound.PortAudioError, ValueError) as error:
            problem = error
        else:
            return Opened(stream, device, rate, channels)
    raise _cannot_open(device, kind, problem)


def start(sound: SoundLibrary, opened: Opened, kind: Kind) -> None:
    """Let the device begin. Raises `EngineError` where it does not; then it is given back."""
    try:
        opened.stream.start()
    except sound.PortAudioError as error:
        opened.stream.close()
        raise _cannot_open(opened.device, kind, error) from error


def _cannot_open(device: Device, kind: Kind, problem: Exception | None) -> EngineError:
    error = EngineError(
        f"the {kind} device {device.index} ({device.name}) cannot be opened: {problem}. "
        "Is it in use by another program, or does the system forbid it?",
        code="device_failed",
    )
    error.__cause__ = problem
    return error


def _layouts(device: Device, kind: Kind, rate_hz: int | None) -> Iterator[tuple[int, int]]:
    rates = dict.fromkeys((RATE_HZ, device.rate_hz)) if rate_hz is None else (rate_hz,)
    for rate in rates:
        for channels in range(1, min(device.channels(kind), CHANNELS_MAX) + 1):
            yield rate, channels


async def opened_in_thread(open: Callable[[], None], close: Callable[[], None]) -> None:
    """Call `open` on a thread, since a device takes its time. What is open too late for a cancelled task is closed."""
    opening = asyncio.ensure_future(asyncio.to_thread(open))
    try:
        await asyncio.shield(opening)
    except asyncio.CancelledError:
        await asyncio.wait([opening])
        await asyncio.to_thread(close)
        raise
