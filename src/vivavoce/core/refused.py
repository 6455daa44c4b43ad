"""A client event that cannot be done: raised inside the machine, before anything changed, and sent as an `error`."""

from __future__ import annotations


class Refused(Exception):
    """Why an event has no effect. `code` and dotted `param` as in reference §3.2. Never leaves `Session.handle`."""

    def __init__(self, code: str | None, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


def invalid(param: str, message: str) -> Refused:
    """The common case: a value that cannot be used, and where it stood."""
    return Refused("invalid_value", message, param)
