"""Text of others on its way to a terminal: models, servers and transcribers say words, and may not give orders.

A control character in an answer could move the cursor, write into the clipboard, or make a line say what it does not.
Invariant: of the control characters only line feeds and tabs are passed on; each of the others is seen, and no more.
"""

from __future__ import annotations

_C0 = (code for code in range(0x20) if chr(code) not in "\n\t\r")
_C1 = range(0x7F, 0xA0)
"""With the one for deletion. Terminals take some of them for what ESC and a letter say."""

_VISIBLE = {"\r": "", **{chr(code): "\ufffd" for code in (*_C0, *_C1)}}
_WORDS = str.maketrans(_VISIBLE)
_ESCAPED = str.maketrans({"\n": " ", "\r": " ", **{chr(code): f"\\u{code:04x}" for code in (*_C1, 0x2028, 0x2029)}})


def as_words(text: str) -> str:
    """The text without orders. That of a beginning is the beginning of that of the whole."""
    return text.translate(_WORDS)


def as_line(text: str) -> str:
    """Likewise, in one line."""
    return " ".join(as_words(text).split())


def as_json_line(json: str) -> str:
    """The same JSON, in one line by anybody's count. Below 32 it has no control characters but between its values."""
    return json.translate(_ESCAPED)
