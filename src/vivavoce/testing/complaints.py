"""What the program complains about in its log while a test runs."""

from __future__ import annotations

import logging

from vivavoce.errors import EngineError

__all__ = ["Complaints"]


class Complaints(logging.Handler):
    """Everything that is logged as an error while the block lasts: bugs, where no engine failed as its script says."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        if record.exc_info and isinstance(record.exc_info[1], EngineError):
            return
        self.records.append(f"{record.getMessage()} {record.exc_info and record.exc_info[1]!r}")

    def __enter__(self) -> Complaints:
        logging.getLogger("vivavoce").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("vivavoce").removeHandler(self)
