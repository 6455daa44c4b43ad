"""What each client may still do and has used, and what the whole relay has: limits, usage, cost, counters.

A client is a key of the settings, the user whom a short-lived key was made for, or an address where there is no key.
Pure but for the clock that is given. Invariants: there are never more clients than `CLIENTS_MAX` besides those with an
open session; nothing here knows a key, only its id.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vivavoce.core.account import Price, Tokens
from vivavoce.protocol.items import Usage
from vivavoce.server import metrics
from vivavoce.server.auth import TRY_AGAIN, Refusal
from vivavoce.server.quota import Quota

from .settings import RelaySettings

CLIENTS_MAX = 10_000
"""Clients that are remembered; beyond it the one that was not here longest is forgotten, and begins anew."""
DAY_S = 86_400.0
POLICY = 1008


@dataclass(slots=True)
class Client:
    """One client: what it may still use."""

    id: str
    key_id: str
    sessions: int = 0
    """Open ones."""
    begun: Quota | None = None
    budget: Quota | None = None


class Counters:
    """What the relay has done since it began, and its open sessions now: what Prometheus is told."""

    def __init__(self, open_now: Callable[[], float]) -> None:
        def counter(name: str, about: str, *labels: str) -> metrics.Counter:
            return metrics.Counter(f"vivavoce_relay_{name}_total", about, labels)

        self.open = metrics.Gauge(
            "vivavoce_relay_sessions_open", "Sessions that are open.", (), lambda: {(): open_now()}
        )
        self.sessions = counter("sessions", "Sessions begun, by the id of the key.", "key")
        self.refusals = counter("refusals", "Clients refused, by code.", "code")
        self.ends = counter("ends", "Sessions ended, by what ended them.", "by")
        self.messages = counter("messages", "Messages, by who sent them.", "from")
        self.message_bytes = counter("bytes", "Bytes of messages, by who sent them.", "from")
        self.responses = counter("responses", "Responses done, by key.", "key")
        self.input_tokens = counter("input_tokens", "Tokens read and heard, by key.", "key")
        self.output_tokens = counter("output_tokens", "Tokens written and spoken, by key.", "key")
        self.cost = counter("cost", "What it cost by the prices, in US dollars, by key.", "key")
        self.warnings = counter("warnings", "What could not be expressed and was left out.")
        self.tool_calls = counter("tool_calls", "Function calls answered in the relay.")

    def text(self) -> str:
        """All of them, as Prometheus reads them."""
        return metrics.exposition(tuple(vars(self).values()))


class Ledger:
    """All clients, and the counters. `clock` gives seconds, from any origin."""

    def __init__(self, settings: RelaySettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._clients: OrderedDict[str, Client] = OrderedDict()
        self._prices = {model: Price(**table.plain()) for model, table in settings.prices.items()}
        self.open = 0
        self.counters = Counters(lambda: self.open)

    def __len__(self) -> int:
        return len(self._clients)

    @contextmanager
    def place(self, client_id: str, key_id: str) -> Iterator[Client]:
        """A place for one more session of this client, until the block ends. Raises `Refusal`."""
        client = self._client(client_id, key_id)
        self._check(client)
        client.sessions += 1
        self.open += 1
        try:
            yield client
        finally:
            client.sessions -= 1
            self.open -= 1

    def spending(self, client: Client, model: str) -> Spending:
        """The account of a session that begins."""
        self.counters.sessions.add(1, client.key_id)
        return Spending(self, client, self._prices.get(model), self._settings.session_budget)

    def spent(self, client: Client, cost: float) -> str | None:
        """A client has cost so much. Says why its sessions have to end, where its budget is spent."""
        self.counters.cost.add(cost, client.key_id)
        if client.budget is None:
            return None
        client.budget.spend(cost, self._clock())
        is_spent = client.budget.seconds_until(0, self._clock()) > 0
        return f"The budget of {client.budget.limit:g} a day is spent." if is_spent else None

    def _client(self, client_id: str, key_id: str) -> Client:
        client = self._clients.pop(client_id, None) or self._new(client_id, key_id)
        self._clients[client_id] = client
        if len(self._clients) > CLIENTS_MAX:
            idle = next((id for id, known in self._clients.items() if not known.sessions), None)
            self._clients.pop(idle or "", None)
        return client

    def _new(self, client_id: str, key_id: str) -> Client:
        a_minute, a_day = self._settings.client_sessions_per_minute_max, self._settings.client_budget_per_day
        return Client(
            client_id,
            key_id,
            begun=None if a_minute is None else Quota.a_minute(a_minute),
            budget=None if a_day is None else Quota(a_day, a_day / DAY_S),
        )

    def _check(self, client: Client) -> None:
        settings, now = self._settings, self._clock()
        if self.open >= settings.sessions_max:
            raise _too_many(f"This relay carries {settings.sessions_max} sessions at once, all are taken")
        if settings.client_sessions_max is not None and client.sessions >= settings.client_sessions_max:
            raise _too_many(f"You may have {settings.client_sessions_max} sessions at once")
        if client.budget is not None and (wait_s := client.budget.seconds_until(0, now)) > 0:
            said = f"Your budget of {client.budget.limit:g} a day is spent"
            raise _later("budget_exceeded", said, wait_s)
        if client.begun is not None and not client.begun.take(1, now):
            said = f"You may begin {settings.client_sessions_per_minute_max} sessions a minute"
            raise _later("rate_limit_exceeded", said, client.begun.seconds_until(1, now))


@dataclass(slots=True)
class Spending:
    """What one session has used and cost."""

    ledger: Ledger
    client: Client
    price: Price | None
    budget: float | None
    cost: float = 0.0
    responses: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def used(self, usage: Usage) -> str | None:
        """A response is done. Says why the session has to end, where a budget is spent."""
        tokens, key, counters = Tokens.of(usage), self.client.key_id, self.ledger.counters
        self.responses += 1
        self.input_tokens += tokens.input
        self.output_tokens += tokens.output
        counters.responses.add(1, key)
        counters.input_tokens.add(tokens.input, key)
        counters.output_tokens.add(tokens.output, key)
        return self._spend(0.0 if self.price is None else self.price.of_tokens(tokens))

    def transcribed(self, seconds: float) -> str | None:
        """So much audio was transcribed; likewise."""
        return self._spend(0.0 if self.price is None else self.price.of_audio(seconds))

    def _spend(self, cost: float) -> str | None:
        self.cost += cost
        why = self.ledger.spent(self.client, cost)
        if why is None and self.budget is not None and self.cost >= self.budget:
            why = f"The session has cost its budget of {self.budget:g}."
        return why


def _too_many(said: str) -> Refusal:
    return Refusal(TRY_AGAIN, "too_many_sessions", f"{said}; try again later.", type="rate_limit_error")


def _later(code: str, said: str, wait_s: float) -> Refusal:
    after_s = max(1, math.ceil(wait_s))
    message = f"{said}; try again in {after_s} s."
    return Refusal(TRY_AGAIN, code, message, type="rate_limit_error", retry_after_s=after_s)
