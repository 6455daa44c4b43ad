"""What can be set on a relay: where it goes, who may come, what they may do and spend, what is kept.

Read as a server's settings are: a TOML file, then variables `VIVAVOCE_RELAY_…`, then the command line. Everything that
cannot be used is refused here, by its name, before anything listens. Invariant: no key appears in a `repr`, an error or
a command line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, structs

from vivavoce.client.endpoint import Endpoint, Kind, Target, resolve
from vivavoce.errors import LocalProtocolError, SettingsError
from vivavoce.protocol.client_codec import Dialect
from vivavoce.server.auth import is_loopback
from vivavoce.server.settings import SIGNING_KEY_CHARS_MIN, LogFormat, LogLevel, PriceTable, Secret, convert
from vivavoce.server.sources import parsed, put, read_toml, scalars

PREFIX = "VIVAVOCE_RELAY_"
CONFIG = "VIVAVOCE_RELAY_CONFIG"
"""Names the file where no argument does."""

Positive = Annotated[int, Meta(ge=1)]
Dollars = Annotated[float, Meta(gt=0)]


class RelaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set on a relay."""

    upstream: str
    """The service: a base URL or a whole one, of OpenAI, of Azure (`https://RESOURCE.openai.azure.com`) or of any
    Realtime server."""
    upstream_key: Secret | None = None
    """The key of the service, which stays in the relay. Left out, it is that of the environment which belongs to the
    host of `upstream`: `OPENAI_API_KEY`, `AZURE_OPENAI_API_KEY`."""
    api_version: str | None = None
    """Azure's preview, for example `2025-04-01-preview`; left out, Azure's GA endpoint."""
    upstream_dialect: Dialect | None = None
    """What the service speaks; left out, beta at Azure's preview and GA anywhere else."""
    model: str | None = None
    """The model of clients that name none."""
    models: dict[str, str] = {}
    """The models that clients may name, and what the service calls each, at Azure its deployment. Empty: every model,
    as it is named."""
    strict: bool = False
    """Whether what the other dialect cannot express is an error; otherwise it is left out and said once, in an event
    `vivavoce.warning`."""
    host: str = "127.0.0.1"
    """Address to bind. Another than loopback needs `api_keys`."""
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8081
    """Port to bind; 0 is any free one."""
    api_keys: tuple[Secret, ...] = ()
    """Keys of your own servers, which open sessions and make short-lived keys for browsers. None given: everybody on
    this machine may."""
    admin_keys: tuple[Secret, ...] = ()
    """Keys of operators, for `GET /metrics` and `/v1/realtime/sessions`. Without any, only a relay without `api_keys`
    shows them."""
    signing_key: Secret | None = None
    """What short-lived keys are sealed with, at least 32 characters. Relays that shall take each other's keys share it;
    left out, each makes one of its own."""
    origins: tuple[str, ...] = ()
    """Web pages that may connect without a key and call the HTTP endpoints, besides those of this machine."""
    anonymous: bool = False
    """Whether pages of `origins` may connect without any key although there are `api_keys`. Programs that are no
    browsers can say any origin: set limits."""
    refusals: Literal["close", "http"] = "close"
    """How the relay refuses: `close` completes the handshake, sends an `error` and closes with a code; `http` answers
    with a status. What the service refuses by a status is always answered with that."""
    sessions_max: Positive = 200
    """Sessions at once. One more is refused with `too_many_sessions`."""
    client_sessions_max: Positive | None = None
    """Sessions at once of one client. One more is refused with `too_many_sessions`."""
    client_sessions_per_minute_max: Positive | None = None
    """Sessions that one client may begin in a minute. One more is refused with `rate_limit_exceeded`."""
    client_messages_per_second_max: Positive | None = None
    """Messages that one session takes from its client; from one that sends more is read more slowly."""
    session_ms_max: Positive | None = None
    """How long a session may last. Then `session_expired` and close 1001."""
    session_budget: Dollars | None = None
    """US dollars that one session may cost by `prices`. Then `budget_exceeded` and close 1008."""
    client_budget_per_day: Dollars | None = None
    """US dollars that one client may cost in a day, evenly regained. Then its sessions end, and further ones are
    refused, with `budget_exceeded`."""
    prices: dict[str, PriceTable] = {}
    """What models cost, by the name that clients use."""
    session_fields: tuple[str, ...] = ("*",)
    """What clients may set by `session.update` and `response.create`, in GA's names: `instructions`,
    `audio.output.voice`, `audio.input` with all below it. Anything else is refused with `not_allowed`. `*` is
    everything; an empty list is nothing."""
    policies: tuple[str, ...] = ()
    """Hooks that see every session, as `module:name` of a factory; see `docs/how-to/relay.md`."""
    tapes: str | None = None
    """Folder into which every session is recorded, as its client saw it, without secrets."""
    tapes_leave_out: tuple[Literal["audio", "text"], ...] = ()
    """What tapes leave out besides: `audio` becomes silence, `text` placeholders."""
    session_log: Secret | None = None
    """Where a record of every session is kept, with what it used and why it ended, and no word of it: the path of a
    SQLite file, or `postgresql://user:password@host/name`. Needs the extra `operators`. Left out, nothing is kept."""
    session_log_days: Annotated[float, Meta(gt=0)] = 30
    """Sessions that ended longer ago are forgotten."""
    session_log_rows_max: Positive = 100_000
    """Sessions that are kept, the latest."""
    connect_ms_max: Positive = 10_000
    """Time for the connection to the service. Then 504."""
    stall_ms_max: Positive = 20_000
    """Time that either side may take nothing of what is sent. Then the session ends, close 1008 to a client."""
    ping_interval_ms: Positive = 20_000
    """Time without a byte from a side until it is pinged, and then for its answer. Then its connection is lost."""
    message_bytes_max: Positive = 16 * 1024 * 1024
    """Size of a message; a larger one ends its session with close 1009."""
    request_bytes_max: Positive = 256 * 1024
    """Size of the body of an HTTP request. A larger one is refused with status 413."""
    log_level: LogLevel = "info"
    """How much is logged."""
    log_format: LogFormat = "text"
    """How: lines of `text`, or one `json` object a line. Every line names the session that it is about."""

    def endpoint(
        self, model: str | None, kind: Kind, headers: Mapping[str, str], environment: Mapping[str, str] | None = None
    ) -> Endpoint:
        """The service for a session of this kind. Raises `SettingsError`."""
        key = None if self.upstream_key is None else self.upstream_key.reveal()
        is_preview = self.api_version is not None
        target = Target(
            url=None if is_preview else self.upstream,
            azure_endpoint=self.upstream if is_preview else None,
            api_version=self.api_version,
            api_key=key,
            model=model,
            dialect=self.upstream_dialect,
            kind=kind,
            headers=headers,
        )
        try:
            return resolve(target, os.environ if environment is None else environment)
        except LocalProtocolError as error:
            raise SettingsError(f"upstream: {error}") from None


def relay_settings(
    *,
    config: Path | None = None,
    environment: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> RelaySettings:
    """Settings from a TOML file, then the environment, then `options` by name. Raises `SettingsError`."""
    environment = os.environ if environment is None else environment
    if config is None and (named := environment.get(CONFIG)):
        config = Path(named)
    values = {} if config is None else read_toml(config)
    for path, kind in scalars(RelaySettings):
        variable = PREFIX + "__".join(path).upper()
        if (text := environment.get(variable)) is not None:
            put(values, path, parsed(variable, text, kind))
    values |= {name: value for name, value in (options or {}).items() if value is not None}
    return relay_settings_of(values)


def relay_settings_of(values: Mapping[str, Any]) -> RelaySettings:
    """Settings from plain values, as a TOML file has them. Raises `SettingsError` that names the setting."""
    fields = {field.name: field.type for field in structs.fields(RelaySettings)}
    unknown = [name for name in values if name not in fields]
    if unknown:
        raise SettingsError(f"{unknown[0]}: there is no such setting of a relay; there is {', '.join(fields)}")
    if not values.get("upstream"):
        raise SettingsError("upstream: say where to relay to, for example --upstream https://api.openai.com/v1")
    settings = RelaySettings(**{name: convert(name, value, fields[name]) for name, value in values.items()})
    _check(settings)
    return settings


def _check(settings: RelaySettings) -> None:
    """What the types alone cannot say."""
    settings.endpoint(settings.model or next(iter(settings.models.values()), "model"), "conversation", {})
    for name in ("api_keys", "admin_keys"):
        if any(not key.reveal().strip() for key in getattr(settings, name)):
            raise SettingsError(f"{name}: a key cannot be empty")
    if settings.signing_key is not None and len(settings.signing_key.reveal()) < SIGNING_KEY_CHARS_MIN:
        raise SettingsError(f"signing_key: expected at least {SIGNING_KEY_CHARS_MIN} characters that nobody can guess")
    if not is_loopback(settings.host) and not settings.api_keys:
        raise SettingsError(
            f"host: {settings.host!r} can be reached from other machines, and no api_keys are set; set api_keys "
            "(--api-key, VIVAVOCE_RELAY_API_KEYS), or bind to 127.0.0.1"
        )
    if settings.anonymous and not settings.origins:
        raise SettingsError("anonymous: say which pages may come without a key, in origins")
    has_budget = settings.session_budget is not None or settings.client_budget_per_day is not None
    if has_budget and not settings.prices:
        raise SettingsError("prices: a budget needs them, by model; without them nothing costs anything")
    if settings.tapes is not None and not (Path(settings.tapes).is_dir() and os.access(settings.tapes, os.W_OK)):
        raise SettingsError(f"tapes: there is no folder {settings.tapes!r} that can be written to")
