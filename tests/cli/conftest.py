"""Types that every event is judged by take seconds to import: here, and not while a command waits for a server."""

import openai.types.beta.realtime
import openai.types.realtime  # noqa: F401
