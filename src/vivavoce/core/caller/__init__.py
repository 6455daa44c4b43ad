"""The client's mind: what one end of a conversation does without being told, pure (design: sans-IO, one door).

Begin reading at `messages.py` (what goes in and out) and `machine.py` (the door). It knows who has been answered, lets
one `response.create` be on its way at a time, runs no tool but says which to run, cuts answers at what was heard, and
knows what a new session must be told to go on where the old one ended.
"""

from .limits import CallerLimits
from .machine import Caller
from .messages import Heard

__all__ = ["Caller", "CallerLimits", "Heard"]
