"""A client event that cannot be done: raised inside the machine, before anything changed, and sent as an `error`."""

from __future__ import annotations

from vivavoce.protocol.events import ErrorDetail, ErrorEvent


class Refused(Exception):
    """Why an event has no effect. `code` and dotted `param` as in reference §3.2. Never leaves `Session.handle`."""

    def __init__(self, code: str | None, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param

    def told(self, event_id: str | None) -> ErrorEvent:
        """As the client hears of it; `event_id` is that of its own event, None where it gave none."""
        return ErrorEvent(
            error=ErrorDetail(
                type="invalid_request_error",
                code=self.code,
                message=self.message,
                param=self.param,
                event_id=event_id,
            )
        )


def invalid(param: str, message: str) -> Refused:
    """The common case: a value that cannot be used, and where it stood."""
    return Refused("invalid_value", message, param)
