"""A double of the module `sounddevice`: devices that exist on paper, and a thread that is the test itself.

Streams do nothing by themselves. `Stream.ask` is the device asking for the next block, `Stream.hear` one recording it;
time is what the test says it is, on the stream's own clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from vivavoce.client.devices import Kind


class PortAudioError(Exception):
    pass


def description(
    index: int, name: str, *, inputs: int = 0, outputs: int = 0, rate_hz: int = 48_000, host: int = 0
) -> Any:
    return {
        "index": index,
        "name": name,
        "max_input_channels": inputs,
        "max_output_channels": outputs,
        "default_samplerate": float(rate_hz),
        "hostapi": host,
    }


@dataclass
class Stream:
    settings: dict[str, Any]
    latency: float = 0.05
    time: float = 1_000.0
    active: bool = False
    calls: list[str] = field(default_factory=list)
    states_times: bool = True

    @property
    def rate_hz(self) -> int:
        return int(self.settings["samplerate"])

    def start(self) -> None:
        self.active = True
        self.calls.append("start")

    def abort(self) -> None:
        self.end()
        self.calls.append("abort")

    def close(self) -> None:
        self.calls.append("close")

    def end(self) -> None:
        """The device ends the stream, told to or not."""
        self.active = False
        if (finished := self.settings["finished_callback"]) is not None:
            finished()

    def ask(self, frames: int | None = None) -> bytes:
        """Ask for a block that will be heard `latency` from now; time passes by its length."""
        frames = frames or self.settings["blocksize"]
        out = bytearray(2 * frames * self.settings["channels"])
        times = SimpleNamespace(outputBufferDacTime=self.time + self.latency if self.states_times else 0.0)
        self.settings["callback"](memoryview(out), frames, times, None)
        self.time += frames / self.rate_hz
        return bytes(out)

    def hear(self, audio: bytes) -> None:
        """Record a block; time passes by its length."""
        frames = len(audio) // 2 // self.settings["channels"]
        self.settings["callback"](memoryview(audio), frames, SimpleNamespace(outputBufferDacTime=0.0), None)
        self.time += frames / self.rate_hz


class Sound:
    """`rates_hz` and `channels` are all that any of its devices can do."""

    PortAudioError = PortAudioError

    def __init__(
        self,
        described: Sequence[Any] | None = None,
        *,
        rates_hz: Sequence[int] = (24_000, 48_000),
        channels: Sequence[int] = (1, 2),
        defaults: dict[str, int] | None = None,
    ) -> None:
        self.described = (
            [
                description(0, "Built-in Microphone", inputs=2),
                description(1, "Built-in Output", outputs=2),
                description(2, "USB Headset", inputs=1, outputs=2, rate_hz=44_100),
            ]
            if described is None
            else list(described)
        )
        self.rates_hz, self.channels = rates_hz, channels
        self.defaults = {"input": 0, "output": 1} if defaults is None else defaults
        self.streams: list[Stream] = []

    @property
    def stream(self) -> Stream:
        """The stream that was opened last."""
        return self.streams[-1]

    def query_devices(self, device: int | None = None, kind: Kind | None = None) -> Any:
        if kind is None:
            return self.described
        if kind not in self.defaults:
            raise PortAudioError(f"Error querying device -1 for {kind}")
        return self.described[self.defaults[kind]]

    def _open(self, **settings: Any) -> Stream:
        if settings["samplerate"] not in self.rates_hz or settings["channels"] not in self.channels:
            raise PortAudioError("Invalid sample rate")
        self.streams.append(Stream(settings))
        return self.stream

    RawOutputStream = RawInputStream = _open
