"""What can be set on a server, as frozen structs; `sources` says where the values come from.

Read once, at the start; everything that cannot be used is refused here, by its key path, before anything listens. The
docstrings of the fields are the reference in `docs/reference/settings.md`. Invariant: no key and no engine option
appears in a `repr` or in an error message.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, structs

from vivavoce.core.limits import SWITCHED_OFF, Limits
from vivavoce.engines.registry import PRESETS, EngineSettings, PipelineSettings
from vivavoce.errors import SettingsError

from .runtime import ConnectionLimits

T = TypeVar("T")

SIGNING_KEY_CHARS_MIN = 32

ROLES_FROM = "local"
"""The preset that fills the roles which a pipeline of the settings leaves out."""
MAY_BE_EMPTY = ("turn_detector", "noise_reducer")
NO_ENGINE = "none"


LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]


class Secret:
    """A text that does not show itself: `reveal` is the only way to it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


class PipelineTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pipeline as the settings write it; a role that is left out is filled from the preset `local`.

    For `turn_detector` and `noise_reducer` the engine may be `none`: then what needs them is refused.
    """

    vad: EngineSettings | None = None
    transcriber: EngineSettings | None = None
    language_model: EngineSettings | None = None
    synthesizer: EngineSettings | None = None
    turn_detector: EngineSettings | None = None
    noise_reducer: EngineSettings | None = None

    def named(self, name: str) -> PipelineSettings:
        """The whole pipeline; the roles that may be empty are so where their engine is `none`."""
        chosen = {role: engine for role in self.__struct_fields__ if (engine := getattr(self, role)) is not None}
        empty = {role: None for role in MAY_BE_EMPTY if role in chosen and chosen[role].engine == NO_ENGINE}
        return structs.replace(PRESETS[ROLES_FROM], name=name, **(chosen | empty))

    def __repr__(self) -> str:
        chosen = ", ".join(
            f"{role}={getattr(self, role).engine}" for role in self.__struct_fields__ if getattr(self, role)
        )
        return f"PipelineTable({chosen})"


class RateLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one key may use, of all its sessions together. Stated in `rate_limits.updated`."""

    requests_per_minute: Annotated[int, Meta(ge=1)] = 10_000
    """Responses a minute. One more fails with `rate_limit_exceeded`."""
    tokens_per_minute: Annotated[int, Meta(ge=1)] = 10_000_000
    """Tokens a minute, in and out. A response that needs more than is left fails likewise."""


class WebRtc(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Calls by WebRTC. They need the extra `webrtc`. Media goes by UDP, to ports that the system chooses."""

    peers_max: Annotated[int, Meta(ge=0)] = 16
    """Calls at once, about what one core can carry. One more is refused with `too_many_calls`; 0 refuses them all."""
    setup_ms_max: Annotated[int, Meta(ge=1)] = 15_000
    """Time in which a peer has to connect and to open its data channel. Then its call is over."""
    idle_ms_max: Annotated[int, Meta(ge=1)] = 900_000
    """Time without any event from either side. Then the call is over."""
    ahead_ms_max: Annotated[int, Meta(ge=1_000, le=600_000)] = 30_000
    """Speech that may wait to be played. Beyond it the synthesizer waits. 48 KB a second."""
    stun_server: str | None = None
    """`stun:host:port`. Tells the server by which address the Internet sees it. Left out, none is asked."""
    turn_server: str | None = None
    """`turn:host:port?transport=udp`. Relays media where no direct way exists. Left out, nothing is relayed."""
    turn_username: str | None = None
    """Name at the TURN server."""
    turn_credential: Secret | None = None
    """Password at the TURN server."""


Dollars = Annotated[float, Meta(ge=0)]


class PriceTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model costs, in US dollars per million tokens."""

    text_in: Dollars = 0.0
    """Text that the model reads."""
    text_cached: Dollars | None = None
    """The part of it that comes from a cache; left out, as `text_in`."""
    text_out: Dollars = 0.0
    """Text that the model writes."""
    audio_in: Dollars = 0.0
    """Audio that the model hears."""
    audio_cached: Dollars | None = None
    """The part of it that comes from a cache; left out, as `audio_in`."""
    audio_out: Dollars = 0.0
    """Audio that the model speaks."""
    image_in: Dollars = 0.0
    """Images that the model sees."""
    transcription_minute: Dollars = 0.0
    """A minute of transcribed audio, in US dollars."""

    def plain(self) -> dict[str, float]:
        """Every price as a number; what was left out is filled in."""
        cached = {"text_cached": self.text_in, "audio_cached": self.audio_in}
        given = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: float(cached[name] if price is None else price) for name, price in given.items()}


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set on a server."""

    host: str = "127.0.0.1"
    """Address to bind. Without `api_keys` only loopback is allowed."""
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8080
    """Port to bind; 0 is any free one."""
    api_keys: tuple[Secret, ...] = ()
    """Keys that are accepted. None given: everybody is, and only from this machine."""
    signing_key: Secret | None = None
    """What short-lived keys are sealed with, at least 32 characters. Processes that shall take each other's keys share
    it; left out, each process makes one of its own, and its keys end with it."""
    origins: tuple[str, ...] = ()
    """Web pages that may use the HTTP endpoints, and connect without a key, as `scheme://host[:port]`, besides those of
    this machine."""
    refusals: Literal["close", "http"] = "close"
    """How a WebSocket is refused: `close` completes the handshake, sends an `error` event and closes with a code, as
    OpenAI does; `http` answers the handshake with a status and a JSON body, as Azure does."""
    pipeline: str = "local"
    """The pipeline for every model name that nothing else is said about."""
    models: dict[str, str] = {}
    """Model names, and the pipelines that serve them."""
    unknown_models: Literal["serve", "refuse"] = "serve"
    """A model name that is neither in `models` nor that of a pipeline: `serve` it by `pipeline`, or `refuse` it."""
    pipelines: dict[str, PipelineTable] = {}
    """Pipelines besides the presets `local` and `scripted`; a role that is left out is filled from `local`."""
    sessions_max: Annotated[int, Meta(ge=1)] = 100
    """Sessions at once. One more is refused with `too_many_sessions`."""
    sessions_per_minute_max: Annotated[int, Meta(ge=1)] | None = None
    """Sessions that one key may begin in a minute. One more is refused with `rate_limit_exceeded`. Left out, there is
    no limit."""
    request_bytes_max: Annotated[int, Meta(ge=1)] = 256 * 1024
    """Size of the body of an HTTP request. A larger one is refused with status 413."""
    ping_interval_ms: Annotated[int, Meta(ge=0)] = 20_000
    """Time between two pings of a WebSocket, and for the answer to one; 0 sends none."""
    websocket: Literal["uvicorn", "picows"] = "uvicorn"
    """What speaks WebSocket: `uvicorn` in Python, or `picows`, compiled, which takes less CPU for each message. Paths,
    keys, refusals and close codes are the same. A client that compresses gets `uvicorn` in any case."""
    compression: bool = False
    """Whether permessage-deflate is offered: about a third fewer bytes, for 1.5 to 2.4 times the CPU and 50 to 200 KB a
    session."""
    warm_up_ms_max: Annotated[int, Meta(ge=0)] = 60_000
    """Time that a new connection waits for models that are still being loaded."""
    drain_ms_max: Annotated[int, Meta(ge=0)] = 10_000
    """Time that running responses have to end when the server stops."""
    resume_ms_max: Annotated[int, Meta(ge=0)] = 30_000
    """Time that a session whose connection was lost waits for its client, where the client has asked for that. It keeps
    its place in `sessions_max`. 0 offers it to nobody."""
    mcp_hosts: tuple[str, ...] = ("*",)
    """Hosts of the MCP servers that clients may have called, as `host` or `host:port`; `*` is every host on public
    addresses. Those of the own network count only where they are listed. An empty list turns MCP off."""
    prompts: str | None = None
    """Folder of the stored prompts that a session may name, seen from where the server is started. Left out, there are
    none."""
    tapes: str | None = None
    """Folder into which every session is recorded, one file each; secrets are left out. Left out, nothing is."""
    tapes_leave_out: tuple[Literal["audio", "text"], ...] = ()
    """What tapes leave out besides: `audio` becomes silence, `text` placeholders, both of the same length."""
    budget: Annotated[float, Meta(gt=0)] | None = None
    """US dollars that one session may cost by `prices`; left out, there is no limit."""
    console: bool = True
    """Whether there is a page at `/` to talk to the server from, and to look inside."""
    metrics: Literal["operators", "everybody", "off"] = "operators"
    """Who may read the metrics at `GET /metrics`: `operators` with a key of `admin_keys`, as all sessions are seen;
    `everybody` who reaches the port; or nobody."""
    log_level: LogLevel = "info"
    """How much is logged."""
    log_format: LogFormat = "text"
    """How: lines of `text`, or one `json` object a line. Every line names the session that it is about."""
    session_log: Secret | None = None
    """Where a record of every session is kept, with what it used and why it ended, and no word of it: the path of a
    SQLite file, or `postgresql://user:password@host/name`. Needs the extra `operators`. Left out, nothing is kept."""
    session_log_days: Annotated[float, Meta(gt=0)] = 30
    """Sessions that ended longer ago are forgotten."""
    session_log_rows_max: Annotated[int, Meta(ge=1)] = 100_000
    """Sessions that are kept, the latest."""
    admin_keys: tuple[Secret, ...] = ()
    """Keys of operators, who may see and close all sessions at `/v1/realtime/sessions`. Without any, only a server
    without `api_keys` shows them, which only this machine reaches."""
    rate_limits: RateLimits = RateLimits()
    """What one key may use."""
    prices: dict[str, PriceTable] = {}
    """What models cost, by model name."""
    webrtc: WebRtc = WebRtc()
    """Calls by WebRTC."""
    session_limits: Limits = Limits()
    """Limits of the session itself."""
    connection_limits: ConnectionLimits = ConnectionLimits()
    """Limits of the connection."""

    def pipelines_in_use(self) -> dict[str, PipelineSettings]:
        """The pipelines to build, by name: the default, those of `pipelines`, and those that `models` names.

        Raises `SettingsError` where a name is that of no pipeline.
        """
        known = {**PRESETS, **{name: table.named(name) for name, table in self.pipelines.items()}}
        wanted = {"pipeline": self.pipeline, **{f"models.{model}": name for model, name in self.models.items()}}
        for path, name in wanted.items():
            if name not in known:
                raise SettingsError(f"{path}: there is no pipeline {name!r}; there is {', '.join(sorted(known))}")
        return {name: known[name] for name in dict.fromkeys((*wanted.values(), *self.pipelines))}


def settings_of(values: Mapping[str, Any]) -> Settings:
    """Settings from plain values, as a TOML file has them. Raises `SettingsError` that names the key."""
    fields = {field.name: field.type for field in structs.fields(Settings)}
    converted: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            raise SettingsError(f"{name}: there is no such setting; there is {', '.join(fields)}{_meant(name, fields)}")
        table = TABLES.get(name)
        converted[name] = _tables(name, value, table) if table else convert(name, value, fields[name])
    settings = Settings(**converted)
    settings.pipelines_in_use()
    _check(settings)
    return settings


TABLES: Mapping[str, type[msgspec.Struct]] = {"pipelines": PipelineTable, "prices": PriceTable}
"""Settings that hold one table for each name."""


def _check(settings: Settings) -> None:
    """What the types alone cannot say."""
    for index, key in enumerate(settings.api_keys):
        if not key.reveal().strip():
            raise SettingsError(f"api_keys[{index}]: a key cannot be empty")
    for index, key in enumerate(settings.admin_keys):
        if not key.reveal().strip():
            raise SettingsError(f"admin_keys[{index}]: a key cannot be empty")
    for name, schemes in (("stun_server", ("stun:",)), ("turn_server", ("turn:", "turns:"))):
        url = getattr(settings.webrtc, name)
        if url is not None and not (url.startswith(schemes) and url.partition(":")[2]):
            raise SettingsError(f"webrtc.{name}: expected '{schemes[0]}host:port', got {url!r}")
    if settings.signing_key is not None and len(settings.signing_key.reveal()) < SIGNING_KEY_CHARS_MIN:
        raise SettingsError(
            f"signing_key: expected at least {SIGNING_KEY_CHARS_MIN} characters that nobody can guess; "
            "'openssl rand -base64 32' makes some"
        )
    for index, origin in enumerate(settings.origins):
        parts = urlsplit(origin)
        if not parts.scheme or not parts.netloc or parts.path not in ("", "/") or parts.query:
            raise SettingsError(f"origins[{index}]: expected 'scheme://host' or 'scheme://host:port', got {origin!r}")
    if settings.prompts is not None and not Path(settings.prompts).is_dir():
        raise SettingsError(f"prompts: there is no folder {settings.prompts!r}")
    if settings.tapes is not None and not (Path(settings.tapes).is_dir() and os.access(settings.tapes, os.W_OK)):
        raise SettingsError(f"tapes: there is no folder {settings.tapes!r} that can be written to")


def _tables(path: str, value: Any, table: type[msgspec.Struct]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SettingsError(f"{path}: expected a table of {path} by name")
    return {name: convert(f"{path}.{name}", one, table) for name, one in value.items()}


def convert(path: str, value: Any, type: Any, *, strict: bool = True) -> Any:
    """A plain value as the type of a setting. Raises `SettingsError` that begins with the path of what is wrong."""
    if dataclasses.is_dataclass(type) and isinstance(value, dict):
        # msgspec passes over what a dataclass does not have.
        known = [field.name for field in dataclasses.fields(type)]
        for name, limit in value.items():
            if name not in known:
                raise SettingsError(
                    f"{path}.{name}: there is no such limit; there is {', '.join(known)}{_meant(name, known)}"
                )
            least = 0 if name in SWITCHED_OFF else 1
            if isinstance(limit, int) and limit < least:
                raise SettingsError(f"{path}.{name}: expected a number of at least {least}")
    try:
        return msgspec.convert(value, type, strict=strict, dec_hook=_secret)
    except msgspec.ValidationError as error:
        said, _, where = str(error).partition(" - at `$")
        raise SettingsError(f"{path}{where.rstrip('`')}: {said}") from None


def _meant(name: str, known: Iterable[str]) -> str:
    """The name that was meant, where one is near."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _secret(kind: type[Any], value: Any) -> Any:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise msgspec.ValidationError(f"Expected `str`, got `{type(value).__name__}`")
