"""The input audio buffer and the audio clock (reference §3.4, §5.3).

Positions are ticks of 1/24000 s since the session began: every input format's sample is a whole number of ticks, so the
clock is exact to the sample however the audio was cut into appends. It counts on through commit, clear and a change of
format. A byte that is not yet a whole sample waits for the next append.
"""

from __future__ import annotations

from vivavoce.audio.formats import Format

TICKS_PER_SECOND = 24_000
TICKS_PER_BYTE_MAX = 3
"""No audio lasts longer: G.711 at 8 kHz."""


def ticks_of(ms: int) -> int:
    """Milliseconds as ticks."""
    return ms * TICKS_PER_SECOND // 1000


def ms_of(ticks: int) -> int:
    """Ticks as whole milliseconds, rounded down."""
    return ticks * 1000 // TICKS_PER_SECOND


class InputAudio:
    """Bytes of one format from tick `start` to tick `end`."""

    def __init__(self, format: Format) -> None:
        self.start = 0
        self.end = 0
        """The audio clock: everything written so far."""
        self._bytes = bytearray()
        self._use(format)

    def _use(self, format: Format) -> None:
        self.format = format
        self._sample_bytes = format.sample_bytes
        self._ticks_per_sample = TICKS_PER_SECOND // format.rate_hz

    def __bool__(self) -> bool:
        return bool(self._whole())

    def _whole(self) -> int:
        return len(self._bytes) // self._sample_bytes

    @property
    def ticks(self) -> int:
        """How much is held."""
        return self.end - self.start

    def ticks_with(self, audio: bytes) -> int:
        """How much would be held after these bytes."""
        return (len(self._bytes) + len(audio)) // self._sample_bytes * self._ticks_per_sample

    def append(self, audio: bytes) -> bytes:
        """Take audio; give back the whole samples that are new, for the detector."""
        held, sample_bytes, ticks_per_sample = len(self._bytes), self._sample_bytes, self._ticks_per_sample
        self._bytes += audio
        self.end = self.start + len(self._bytes) // sample_bytes * ticks_per_sample
        if not held % sample_bytes and not len(audio) % sample_bytes:
            return audio  # which it nearly always is
        return bytes(self._bytes[held // sample_bytes * sample_bytes : self._whole() * sample_bytes])

    def _offset(self, tick: int) -> int:
        samples, sample_bytes = -(-(tick - self.start) // self._ticks_per_sample), self._sample_bytes
        return min(max(samples, 0), len(self._bytes) // sample_bytes) * sample_bytes

    def ticks_in(self, audio: bytes) -> int:
        """How long these bytes last, in this format."""
        return len(audio) // self._sample_bytes * self._ticks_per_sample

    def bytes_of(self, ticks: int) -> int:
        """How many bytes last so long, in this format."""
        return ticks // self._ticks_per_sample * self._sample_bytes

    def until(self, tick: int) -> bytes:
        """A copy of everything before `tick`."""
        return bytes(self._bytes[: self._offset(tick)])

    def between(self, tick: int, until: int) -> bytes:
        """A copy of everything from `tick` on and before `until`."""
        return bytes(self._bytes[self._offset(tick) : self._offset(until)])

    def since(self, tick: int) -> bytes:
        """A copy of everything from `tick` on."""
        return bytes(self._bytes[self._offset(tick) : self._whole() * self._sample_bytes])

    def overwrite(self, tick: int, audio: bytes) -> None:
        """Put `audio` in the place of what stands from `tick` on; what was let go already stays so."""
        skipped = self.bytes_of(max(self.start - tick, 0))
        at = self._offset(tick)
        kept = audio[skipped : skipped + self._whole() * self._sample_bytes - at]
        self._bytes[at : at + len(kept)] = kept

    def forget_before(self, tick: int) -> None:
        """Let go of what lies before `tick`."""
        held = len(self._bytes) // self._sample_bytes
        if (samples := min(-(-(tick - self.start) // self._ticks_per_sample), held)) > 0:
            self.start += samples * self._ticks_per_sample
            del self._bytes[: samples * self._sample_bytes]

    def take_until(self, tick: int) -> bytes:
        """Cut off and return everything before `tick`."""
        audio = self.until(tick)
        self.forget_before(tick)
        return audio

    def clear(self) -> None:
        """Forget everything held, a half sample too; the clock stands where it was."""
        self.start = self.end
        self._bytes.clear()

    def change_format(self, format: Format) -> None:
        """Audio from here on is in another format; what was held is dropped."""
        self.clear()
        self._use(format)
