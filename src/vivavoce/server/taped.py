"""The tapes of a server: every session into a file of its own, where the settings name a folder.

Stands between a runtime and its transport; of a session that outlives its connections there is one tape. Invariant: a
tape that cannot be begun or written costs its session nothing but a warning in the log.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode

from vivavoce.errors import LocalProtocolError
from vivavoce.transports import Transport
from vivavoce.transports.redaction import Redact
from vivavoce.transports.taping import SUFFIX, Header, TapeWriter, Taping

from .admission import Admitted

log = logging.getLogger(__name__)


class TapeSettings(Protocol):
    """What is set about tapes; see `Settings`."""

    @property
    def tapes(self) -> str | None:
        """The folder."""
        ...

    @property
    def tapes_leave_out(self) -> tuple[Redact, ...]:
        """What they leave out besides secrets."""
        ...


class Tapes:
    """The tapes that are being recorded, by session."""

    def __init__(self, settings: TapeSettings) -> None:
        self._settings = settings
        self._writers: dict[str, TapeWriter] = {}

    def taped(self, transport: Transport, admitted: Admitted, session_id: str) -> Transport:
        """The transport, recorded where that is wished for."""
        writer = self.begin(admitted, session_id)
        return transport if writer is None else Taping(transport, writer)

    def begin(self, admitted: Admitted, session_id: str) -> TapeWriter | None:
        """The tape of a session that begins, where that is wished for."""
        if self._settings.tapes is None:
            return None
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{session_id}{SUFFIX}"
        try:
            writer = TapeWriter(
                Path(self._settings.tapes) / name, _header(admitted), redact=self._settings.tapes_leave_out
            )
        except LocalProtocolError as error:
            log.warning("%s: is not recorded: %s", session_id, error)
            return None
        self._writers[session_id] = writer
        return writer

    def of(self, session_id: str) -> TapeWriter | None:
        """The tape of a session, where there is one."""
        return self._writers.get(session_id)

    async def end(self, session_id: str) -> None:
        """The session is over, and so is its tape."""
        writer = self._writers.pop(session_id, None)
        if writer is not None:
            await asyncio.to_thread(writer.close)


def _header(admitted: Admitted) -> Header:
    """What the client has asked for, as a URL would say it."""
    asked = {"model": admitted.model} if admitted.model else {}
    if admitted.kind == "transcription":
        asked["intent"] = "transcription"
    if admitted.dialect == "overview":
        asked["dialect"] = "overview"
    dialect = "translation" if admitted.kind == "translation" else admitted.dialect
    return Header(end="server", dialect=dialect, model=admitted.model or None, url=f"/v1/realtime?{urlencode(asked)}")
