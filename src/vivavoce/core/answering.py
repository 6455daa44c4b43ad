"""The responses of a session: how one begins, what the language model is asked, how engines' reports reach it (§3.12).

Owns the responses that run. A response that needs transcripts waits for them; one that does not fit into the context,
or into the rate limits, fails as `response.done` and not as an error. Invariant: at most one response of the default
conversation runs; reports for a response that is over change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UnsetType, given
from vivavoce.protocol.config import PcmFormat, Prompt, RealtimeSession, Voice
from vivavoce.protocol.items import FunctionCallOutput, Item, McpListTools, Message, Usage

from . import configuration as cfg
from .account import Account
from .adoption import Adopted, Adoption
from .context import as_heard, is_final, spoken_item, without_noises
from .desk import Desk
from .hearing import Heard
from .messages import (
    AudioSynthesized,
    CallArguments,
    CallStarted,
    Cancel,
    Generate,
    GenerationEnded,
    GenerationFailed,
    McpCallEnded,
    PhraseSpoken,
    SynthesisFailed,
    TextGenerated,
)
from .refused import Refused
from .response import RunningResponse
from .terms import Terms, terms, with_prompt
from .tools import Offer, Toolbox
from .usage import Asked
from .window import TURN_TOKENS, ContextFull, Window, image_tokens

AGAIN_MAX = 3
"""How often in a row an answer is given again because a noise has cut it off. Where it is that loud, none is heard."""

USER_AUDIO_TOKEN_MS = 100
"""User audio counts one token for this much (reference §6.3)."""

Report = (
    TextGenerated
    | CallStarted
    | CallArguments
    | GenerationEnded
    | GenerationFailed
    | AudioSynthesized
    | PhraseSpoken
    | SynthesisFailed
)


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer to a turn as it would be begun now, with the ids that it will have."""

    terms: Terms
    message_id: str
    wanted: Generate


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What answering needs of the other parts of the session."""

    adoption: Adoption
    toolbox: Toolbox
    account: Account | None
    filled: Callable[[Prompt, str], RealtimeSession]
    listen_to: Callable[[Adopted], None]
    done: Callable[[RunningResponse, Usage], None]


class Answering:
    """All responses of one session."""

    def __init__(self, desk: Desk, neighbours: Neighbours) -> None:
        self._desk = desk
        self._near = neighbours
        self._window = Window(desk.abilities)
        self._runs: dict[str, RunningResponse] = {}
        self.spoken_voice: Voice | None = None
        """The voice in which the conversation was heard already; then it cannot be another (§2.1)."""
        self._was_cut_off = False
        self._again = 0

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def current(self) -> RunningResponse | None:
        """The running response of the default conversation."""
        return next((run for run in self._runs.values() if run.terms.in_conversation and not run.done), None)

    def runs(self, response_id: str) -> bool:
        """Whether this response has begun, and is not forgotten."""
        return response_id in self._runs

    def is_open(self, item_id: str) -> bool:
        """Whether a response is still at work on this item."""
        return any(run.open_item_id == item_id for run in self._runs.values())

    @property
    def deadline_ms(self) -> int | None:
        """When the engines will have been silent for too long."""
        since = None
        for run in self._runs.values():
            if since is None or run.heard_at_ms < since:
                since = run.heard_at_ms
        return None if since is None else since + self._desk.limits.engine_silence_ms_max

    # --- begin --------------------------------------------------------------------------------------------------------

    def plan(self, item_id: str, transcript: str, response_id: str, message_id: str) -> Plan | None:
        """The answer to a turn in which this was said; None where nothing can be asked now.

        Changes nothing. The same before and after the turn's item is in the conversation.
        """
        question = self._question(item_id, transcript)
        if question is None:
            return None
        settled, offer, items = question
        try:
            wanted, _ = self._request(response_id, settled, offer, items, self._window.copy())
        except ContextFull:
            return None
        return Plan(settled, message_id, wanted)

    def make_room(self, item_id: str) -> None:
        """A turn begins: leave out of the context now what would have to make way for its words.

        Else that would change the whole prompt at the end of the turn, when somebody waits for the answer.
        """
        question = self._question(item_id, "")
        if question is not None:
            with suppress(ContextFull):
                self._request("", *question, self._window, spare=TURN_TOKENS)

    def _question(self, item_id: str, transcript: str) -> tuple[Terms, Offer, tuple[Item, ...]] | None:
        """What the language model would be asked after a turn in which this was said."""
        before = self._context(item for item in self._desk.conversation if item.id != item_id)
        if self.current is not None or any(known.is_pending for known in self._heard(before)):
            return None
        settled = self._settled(ev.ResponseParams(), None)
        offer = self._near.toolbox.offer(settled.tools, settled.tool_choice)
        return settled, offer, (*self._as_heard(before, offer), spoken_item(item_id, transcript))

    def start(self, params: ev.ResponseParams, *, is_automatic: bool, plan: Plan | None = None) -> None:
        """`response.created`, and the language model is asked as soon as it can be. Raises `Refused`.

        A `plan` gives it the ids that it was prepared under.
        """
        desk, near = self._desk, self._near
        in_conversation = given(params.conversation, "auto") == "auto"
        if in_conversation and (active := self.current) is not None:
            raise Refused(
                "conversation_already_has_active_response",
                f"Conversation already has an active response in progress: {active.id}. "
                "Wait until the response is finished before creating a new one.",
            )
        if len(self._runs) >= desk.limits.responses_max:
            raise Refused("too_many_responses", f"At most {desk.limits.responses_max} responses run at once.")
        cfg.check_reasoning(params.reasoning, desk.abilities, "response")
        if (prompt := given(params.prompt, None)) is not None:
            params = with_prompt(params, near.filled(prompt, "response.prompt"))
        given_items = None if isinstance(params.input, UnsetType) else near.adoption.context(params.input)
        context = None if given_items is None else tuple(one.item for one in given_items)
        settled = self._settled(params, context)
        if not isinstance(params.tools, UnsetType) or not isinstance(params.tool_choice, UnsetType):
            near.toolbox.check(settled.tools, settled.tool_choice, "response")
        run = RunningResponse(
            plan.wanted.response_id if plan else desk.new_id("resp"),
            settled,
            desk,
            ask_approval=near.toolbox.ask_approval,
            done=self._done,
            is_automatic=is_automatic,
            message_id=plan.message_id if plan else None,
        )
        self._runs[run.id] = run
        run.own_audio_ids = tuple(one.id for one in given_items or () if one.audio is not None)
        for adopted in given_items or ():
            near.listen_to(adopted)
        run.begin()
        if near.account is not None:
            desk.send(ev.RateLimitsUpdated(rate_limits=near.account.limits(desk.now_ms())))
        near.toolbox.define(given(params.tools, ()), is_lasting=False)
        self._generate(run)

    def _settled(self, params: ev.ResponseParams, context: tuple[Item, ...] | None) -> Terms:
        settled = terms(params, self._desk.realtime, context, self.spoken_voice)
        return replace(settled, audio_format=PcmFormat()) if self._desk.abilities.audio_apart else settled

    def proceed(self) -> None:
        """A transcript has come, or will not come: responses that waited for it may begin."""
        for run in list(self._runs.values()):
            if not run.generating:
                run.heard_at_ms = self._desk.now_ms()
                self._generate(run)

    def _generate(self, run: RunningResponse) -> None:
        """Ask the language model, once every transcript that it needs is there."""
        desk = self._desk
        items = desk.conversation if run.terms.input is None else run.terms.input
        context = self._context(items)
        heard = self._heard(context)
        if any(known.is_pending for known in heard):
            return
        last = desk.hearing.get(given(context[-1].id, "")) if context else None
        if last is not None and last.failure is not None:
            self.fail(run, last.failure.code, last.failure.message)
        elif run.is_automatic and last is not None and not last.transcript:
            self._answer_noise(run, context)
        else:
            self._again = 0
            self._ask(run, context)

    def _answer_noise(self, run: RunningResponse, context: tuple[Item, ...]) -> None:
        """The detector took it for speech: there is nothing to answer, but for what it has cut off."""
        desk = self._desk
        before = without_noises(context, desk.hearing, desk.said, desk.conversation)
        if self._was_cut_off and self._again < AGAIN_MAX and before and self._is_open_end(before[-1]):
            self._again += 1
            self._ask(run, before)
        else:
            run.complete()

    def _is_open_end(self, item: Item) -> bool:
        """Whether more is to be said: after a question, a tool's output, an answer that was not heard to its end."""
        match item:
            case Message(role="assistant"):
                entry = self._desk.conversation.entry(given(item.id, ""))
                return item.status != "completed" or (entry is not None and entry.truncated)
            case Message() | FunctionCallOutput():
                return True
            case _:  # such as a call, of which the client will tell the output
                return False

    def _context(self, items: Iterable[Item]) -> tuple[Item, ...]:
        return tuple(item for item in items if is_final(item) and not isinstance(item, McpListTools))

    def _as_heard(self, context: tuple[Item, ...], offer: Offer) -> tuple[Item, ...]:
        desk = self._desk
        return as_heard(context, desk.hearing, desk.said, desk.conversation, offer.name_of)

    def _heard(self, items: Iterable[Item]) -> list[Heard]:
        return [known for item in items if (known := self._desk.hearing.get(given(item.id, "")))]

    def _ask(self, run: RunningResponse, context: tuple[Item, ...]) -> None:
        desk, settled = self._desk, run.terms
        run.generating, run.heard_at_ms = True, desk.now_ms()
        if settled.in_conversation:
            self._was_cut_off = False
        run.offer = self._near.toolbox.offer(settled.tools, settled.tool_choice)
        try:
            items = self._as_heard(context, run.offer)
            wanted, tokens = self._request(run.id, settled, run.offer, items, self._window)
        except ContextFull as full:
            self.fail(run, "context_length_exceeded", str(full), "invalid_request_error")
            return
        audio_tokens = sum(-(-known.ms // USER_AUDIO_TOKEN_MS) for known in self._heard(wanted.items))
        needed = tokens + audio_tokens + (wanted.max_output_tokens or 0)
        if not self._is_affordable(run, needed):
            self.fail(run, "rate_limit_exceeded", self._too_little(needed), "rate_limit_error")
            return
        run.asked = Asked(tokens, audio_tokens, image_tokens(wanted.items), run.asked.reserved)
        desk.ask(wanted)

    def _request(
        self,
        response_id: str,
        settled: Terms,
        offer: Offer,
        items: tuple[Item, ...],
        window: Window,
        *,
        spare: int = 0,
    ) -> tuple[Generate, int]:
        """What the language model is asked, and how many tokens its context has. Raises `ContextFull`."""
        limit = None if settled.max_output_tokens == "inf" else settled.max_output_tokens
        shown, tokens = window.fit(
            items,
            instructions=settled.instructions,
            tools=offer.functions,
            output_tokens=limit,
            truncation=settled.truncation,
            is_conversation=settled.input is None,
            spare=spare,
        )
        return Generate(
            response_id,
            settled.instructions,
            shown,
            offer.functions,
            offer.choice,
            limit,
            settled.effort,
            settled.is_parallel,
            settled.temperature,
        ), tokens

    def _is_affordable(self, run: RunningResponse, tokens: int) -> bool:
        account = self._near.account
        if account is None:
            return True
        if not account.take(tokens, self._desk.now_ms()):
            return False
        run.asked = Asked(reserved=tokens)
        return True

    def _too_little(self, tokens: int) -> str:
        """Of what there is not enough, and when there will be."""
        account = self._near.account
        for left in account.limits(self._desk.now_ms()) if account else ():
            needed = 1 if left.name == "requests" else tokens
            limit, remaining, reset_s = given(left.limit, 0), given(left.remaining, 0), given(left.reset_seconds, 0.0)
            if needed > limit:
                return (
                    f"Rate limit reached for {left.name}: {needed} are needed, and at most {limit} are ever to be had."
                )
            if needed > remaining:
                wait_s = math.ceil(reset_s * (needed - remaining) / max(limit - remaining, 1))
                return (
                    f"Rate limit reached for {left.name}: {needed} needed, {remaining} of {limit} left. "
                    f"Try again in {max(wait_s, 1)} s."
                )
        return "Rate limit reached. Try again later."

    # --- end ----------------------------------------------------------------------------------------------------------

    def cut_off(self) -> None:
        """The user speaks, as it seems, and does not hear the rest of an answer."""
        self._was_cut_off = True

    def cancel(self, run: RunningResponse, reason: str) -> None:
        """End it from outside: `turn_detected` or `client_cancelled`."""
        if run.terms.in_conversation:
            self._was_cut_off = reason == "turn_detected"
        self._desk.ask(Cancel(run.id))
        run.cancel(reason)

    def cancel_by_client(self, response_id: str | None) -> None:
        """`response.cancel`. Raises `Refused` where nothing runs."""
        run = self.current if response_id is None else self._runs.get(response_id)
        if run is None or run.done:
            which = "" if response_id is None else f" with the id '{response_id}'"
            raise Refused("response_cancel_not_active", f"Cancellation failed: no active response found{which}")
        self.cancel(run, "client_cancelled")

    def fail(self, run: RunningResponse, code: str, message: str, type: str = "server_error") -> None:
        """End it because it could not go on."""
        self._desk.ask(Cancel(run.id))
        run.fail(code, message, type)

    def fail_all(self, code: str, message: str) -> None:
        """The session ends, and with it every response."""
        for run in list(self._runs.values()):
            self.fail(run, code, message)

    def fail_silent(self) -> None:
        """End those whose engines have not been heard of for too long."""
        for run in list(self._runs.values()):
            if self._desk.now_ms() - run.heard_at_ms >= self._desk.limits.engine_silence_ms_max:
                self.fail(run, "engine_timeout", "The engines have been silent for too long.")

    def forget_done(self) -> list[RunningResponse]:
        """Let go of what is done; gives it back for the last time."""
        for run in self._runs.values():
            if run.done:
                break
        else:
            return []  # which it is after nearly every input
        done = [run for run in self._runs.values() if run.done]
        for run in done:
            del self._runs[run.id]
        return done

    def _done(self, run: RunningResponse, usage: Usage) -> None:
        account, now_ms = self._near.account, self._desk.now_ms()
        if account is not None:
            if run.asked.reserved:
                account.settle(run.asked.reserved, given(usage.total_tokens, 0), now_ms)
            tokens = tuple(limit for limit in account.limits(now_ms) if limit.name == "tokens")
            self._desk.send(ev.RateLimitsUpdated(rate_limits=tokens))
        self._near.done(run, usage)

    # --- engine reports -----------------------------------------------------------------------------------------------

    def report(self, report: Report) -> None:
        """What an engine says; dropped where that which it serves is over."""
        run = self._runs.get(report.response_id)
        if run is not None and run.generating and not run.done:
            run.heard_at_ms = self._desk.now_ms()
            self._answer(run, report)

    def mcp_call_ended(self, report: McpCallEnded) -> None:
        """An MCP server answered a call; only the response whose call it was takes it."""
        for run in list(self._runs.values()):
            if not run.done and run.is_calling(report.item_id):
                run.heard_at_ms = self._desk.now_ms()
                run.mcp_call_ended(report)

    def _answer(self, run: RunningResponse, report: Report) -> None:
        match report:
            case AudioSynthesized():
                if self.spoken_voice is None and run.terms.in_conversation:
                    self.spoken_voice = run.terms.voice
                run.take_audio(report.item_id, report.audio)
            case PhraseSpoken():
                run.phrase_spoken(report.item_id, report.phrase)
            case GenerationFailed():
                self.fail(run, report.code, report.message)
            case SynthesisFailed():
                self._stop_speaking(run, report)
            case TextGenerated() | CallArguments():
                run.chars += len(report.text)
                if run.chars > self._desk.limits.response_chars_max:
                    most = self._desk.limits.response_chars_max
                    self.fail(run, "response_too_long", f"It has over {most} characters.")
                else:
                    run.take(report)
            case CallStarted() | GenerationEnded():
                run.take(report)

    def _stop_speaking(self, run: RunningResponse, report: SynthesisFailed) -> None:
        """Without speech the answer goes on as text, in the transcript; the client is told why it falls silent."""
        if run.is_mute:
            return
        detail = ev.ErrorDetail(
            type="server_error",
            code=report.code,
            message=f"Speech synthesis has failed: {report.message} The answer goes on as its transcript.",
        )
        self._desk.send(ev.ErrorEvent(error=detail))
        run.hush(failed=1)
