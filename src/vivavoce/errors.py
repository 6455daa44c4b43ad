"""Every exception vivavoce raises, in one tree.

    VivavoceError
    ├── LocalProtocolError      our caller did what the protocol does not allow
    ├── RemoteProtocolError     the peer did
    │   └── ServerError         the peer answered with an `error` event; carries code, param, event_id
    ├── ConnectionFailed        the connection could not be opened
    ├── ConnectionClosed        it was open and is not any more; carries code and reason
    ├── ResponseFailed          a response came to no good end; carries its code and id
    ├── BudgetExceeded          the session has spent what it may cost; carries cost and budget
    ├── EngineError             a model failed; carries a code
    │   └── EngineMissing       it cannot be had here; the message says which package or setting is missing
    └── SettingsError           a setting cannot be used; names the setting

Blame is a type: whoever catches one knows whose mistake it was. A peer's mistake never raises out of the session
machine; there it becomes an `error` event.
"""

from __future__ import annotations


class VivavoceError(Exception):
    """Root of everything raised here on purpose."""


class LocalProtocolError(VivavoceError):
    """The caller asked for something that the protocol does not allow now."""


class RemoteProtocolError(VivavoceError):
    """The peer sent something that the protocol does not allow."""


class ServerError(RemoteProtocolError):
    """An `error` event of the server, as an exception.

    `code`, `param` and `event_id` are the event's own fields and may be None.
    """

    def __init__(
        self,
        message: str,
        *,
        type: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        event_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.type = type
        self.code = code
        self.param = param
        self.event_id = event_id


class ConnectionFailed(VivavoceError):
    """No connection came about: wrong address, refused, handshake failed.

    `status` is that of the HTTP answer, of the server or of a proxy; None where there was none.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ConnectionClosed(VivavoceError):
    """The connection has ended. `code` is the WebSocket close code (1006 where none was received)."""

    def __init__(self, code: int = 1006, reason: str = "") -> None:
        super().__init__(f"connection closed: {code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class ResponseFailed(VivavoceError):
    """A response failed, was lost with its session, or never ended. `code` is the server's, or ours, or None."""

    def __init__(self, message: str, *, code: str | None = None, response_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.response_id = response_id


class BudgetExceeded(VivavoceError):
    """The session has spent its budget and is over; both in the currency of the prices."""

    def __init__(self, cost: float, budget: float) -> None:
        super().__init__(f"the session has cost {cost:.4f}, and its budget is {budget:g}")
        self.cost = cost
        self.budget = budget


class EngineError(VivavoceError):
    """An engine failed. `code` becomes the `code` of the failed response or transcription."""

    def __init__(self, message: str, *, code: str = "engine_error") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class EngineMissing(EngineError):
    """An engine, its package or its weights are not installed. The message says what to install."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="engine_missing")


class SettingsError(VivavoceError):
    """A setting has a value that cannot be used; the message names the setting and what it takes."""
