"""The server: the Realtime API on your own hardware, as a program, inside one, or mounted in another ASGI app.

`serve(settings)` runs until a signal; `running(settings)` is a context manager; `create_app(settings)` is ASGI.
"""

from .app import create_app, lifespan
from .serve import Server, running, serve
from .settings import Settings
from .sources import load_settings

__all__ = ["Server", "Settings", "create_app", "lifespan", "load_settings", "running", "serve"]
