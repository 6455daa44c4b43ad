"""The server: the Realtime API on your own hardware, as a program, inside one, or mounted in another ASGI app.

`serve(settings)` runs until a signal; `running(settings)` is a context manager; `create_app(settings)` is ASGI.
"""

try:
    from .app import create_app, lifespan
    from .serve import Server, running, serve
    from .settings import Settings
    from .sources import load_settings
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] == "vivavoce":
        raise
    raise ModuleNotFoundError(
        f"a server needs more packages: pip install 'vivavoce[server]' (no module {missing.name!r})", name=missing.name
    ) from missing

__all__ = ["Server", "Settings", "create_app", "lifespan", "load_settings", "running", "serve"]
