"""The embedded language model: SmolLM2-135M-Instruct on llama.cpp, in this process, streamed.

It shows that the wiring works offline; its answers are simple and often wrong. `tool_choice` "required" or a named
function works by constrained decoding; under "auto" it answers in text only, because deciding on a call is beyond a
model of this size, and no call is better than a wrong one. Any other chat model as GGUF can take its place, and decide
on calls too, see `call_margin`.

xllamacpp serves HTTP beside the calls that are used here, and cannot be told not to. It listens on a socket file whose
folder is gone once it listens, so that nobody can reach it; where there are no socket files, on a free port of
127.0.0.1. Either way it wants a random key that never leaves this module.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from vivavoce.engines import ArgumentsPiece, CallPiece, Piece, Prompt, TextPiece, Traits, estimated_tokens
from vivavoce.engines.chat_lines import Chat, Marks, chat_of, fitting, joined, line, tokens_of
from vivavoce.engines.cores import URGENCY, Cores, Urgency
from vivavoce.engines.gguf import metadata
from vivavoce.engines.llama_run import Counts, Run
from vivavoce.engines.options import read_options
from vivavoce.engines.pace import Pace
from vivavoce.engines.requantized import cache_folder, requantized
from vivavoce.engines.schemas import arguments_schema
from vivavoce.engines.slots import Slots, known_lines
from vivavoce.engines.tokens import TokenCounter, gguf_marks, gguf_tokenizer
from vivavoce.engines.weights import SMOLLM, existing, library, verified
from vivavoce.errors import EngineError
from vivavoce.protocol.base import given
from vivavoce.protocol.config import FunctionTool, ToolChoiceFunction
from vivavoce.protocol.items import FunctionCallOutput

__all__ = ["SmolLM", "SmolLMSettings", "create"]

SENTENCE_ENDS = (".", "!", "?")
WARM_UP_TOKENS = 4
ATTEMPTS_MAX = 3
"""How often a prompt is tried that is too long after all, which only a guess at its tokens lets happen: each time with
half of it."""
ANSWER_TOKENS_MIN = 64
"""What a prompt leaves of the context for the answer."""
BATCH_TOKENS = 4
"""How much of a prompt is computed at least in one step, beside a token for every slot. Before a step has ended
llama.cpp looks at nothing, and xllamacpp does not lend out its abort callback: 12 tokens take 86 ms on one slow core,
where 16 took 110 and read a prompt 4 % sooner; 8 would take 62 and 10 % longer, and two 29 and twice as long. With no
room beside the answers, those that are written would keep new ones from being begun."""
REUSED_TOKENS_MIN = 8
"""Where lines are left out of a prompt to keep within the context, what is known of those behind them is moved and not
computed again, in stretches of at least so many tokens. A second or so, and not ten."""
CACHE_MIB = 64
"""Memory for prompts that lost their slot; llama.cpp's own limit is 8 GiB."""
WAITING_MAX = 64
"""Generations at once, those waiting for a slot included."""
SOCKET_PATH_MAX = 100
"""A socket's path has to fit into 104 bytes on some systems."""
GUIDANCE = {"whitespace_flexible": False, "lenient": True, "coerce_one_of": True}
"""How a schema becomes a grammar: no white space to get lost in, and what cannot be kept to is left aside."""

TOOL_OR_TEXT = (
    'Answer with one JSON object: {"tool": "NAME", "arguments": {...}} to use a tool, '
    'or {"text": "..."} to say something to the user, which needs no tool.'
)
TOOL_OR_TEXT_GRAMMAR = 'root ::= "{\\"" ("tool" | "text")'


class SmolLMSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the engine.

    `model`: path of a GGUF file; None is the packaged one. `reads_faster`: the packaged one is written anew once, into
    the user's cache (145 MB), in a form that takes half the time to read a prompt and the same to answer. `threads`:
    one is half as fast as two on an idle machine of two cores, and twenty times as fast on a busy one, because
    llama.cpp's threads wait for each other. `slots`: conversations whose prompt stays computed, 45 MB each.
    `answer_chars`: an answer without a limit of the client's ends at the first sentence behind this many characters,
    since it is spoken, and after as many tokens at the latest; 0 means that the model decides. `temperature` 0 takes
    the likeliest word, which keeps the packaged model to the point; a client may ask for another. `call_margin`: how
    much likelier than text (in natural log-odds) a call has to be under "auto"; None means that none is made. At 1 the
    packaged model called for 11 of 14 requests, and for 2 of 14 remarks that wanted no function: not good enough to be
    the default.
    """

    model: str | None = None
    threads: Annotated[int, Meta(ge=1)] = 1
    reads_faster: bool = True
    context_tokens: Annotated[int, Meta(ge=256)] = 2048
    slots: Annotated[int, Meta(ge=1, le=WAITING_MAX)] = 8
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.0
    repeat_penalty: Annotated[float, Meta(ge=1, le=2)] = 1.05
    answer_chars: Annotated[int, Meta(ge=0)] = 240
    call_margin: float | None = None


class SmolLM:
    """The engine. Nothing is loaded before `warm_up`."""

    def __init__(self, settings: SmolLMSettings | None = None) -> None:
        self._settings = settings or SmolLMSettings()
        self.traits = _traits(self._settings.context_tokens, estimated_tokens)
        self._model = existing(self._settings.model, "smollm", "model") if self._settings.model else None
        self._marks = Marks()
        self._server: Any = None
        self._loading = threading.Lock()
        self._slots = Slots(self._settings.slots)
        self._pace = Pace(self._settings.slots)
        self._waiting = 0
        self._preparing: Run | None = None
        self._changes: list[asyncio.Future[None]] = []
        self._working: dict[Run, Chat] = {}
        """What is being written, or about to be, and the conversations that it belongs to."""
        self.share(Cores())

    def share(self, cores: Cores) -> None:
        """Compute on one of these cores, which others use too: llama.cpp takes all slots together, step by step."""
        self._threads = cores.share("smollm", self._settings.slots, is_one=True)

    async def warm_up(self) -> None:
        """Load, and answer once. Raises `EngineMissing`, or `EngineError` where the file cannot be used."""
        await self._threads.run(Urgency.NOW, self._load)

    async def generate(self, prompt: Prompt) -> AsyncIterator[Piece]:
        """The answer as it is written. Raises `EngineError` before `warm_up`, and where the model refuses."""
        if self._server is None:
            raise EngineError("smollm: not warmed up", code="engine_not_ready")
        before: list[Run] = []
        tool = await self._chosen_tool(prompt, before)
        answer = self._answer(prompt, before) if tool is None else self._call(prompt, tool, before)
        async with aclosing(answer) as pieces:
            async for piece in pieces:
                yield piece

    async def prepare(self, prompt: Prompt) -> None:
        """Compute the beginning of a prompt ahead: what `generate` is given later is then computed from there on.

        Waits while the model answers anybody, and makes way when it has to. Cancel it at any time, at the latest before
        the answer is wanted: what was computed by then is kept. Raises as `generate` does.
        """
        if self._server is None:
            raise EngineError("smollm: not warmed up", code="engine_not_ready")
        chat = chat_of(prompt)
        is_done = not chat
        while not is_done:
            while self._waiting or self._preparing is not None:
                await self._change()
            run = self._preparing = Run()
            async with aclosing(self._stream(chat, {"max_tokens": 0}, run, is_ahead=True)) as texts:
                async for _ in texts:
                    pass
            is_done = not run.is_stopped

    async def close(self) -> None:
        """Free the model, after what is being generated."""
        server, self._server = self._server, None
        await self._threads.close()
        del server

    # --- loading ------------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        with self._loading:
            if self._server is not None:
                return
            llama = library("xllamacpp")
            path = self._model or self._packaged()
            settings = self._settings
            params = llama.CommonParams()
            params.model.path = str(path)
            params.n_ctx = settings.context_tokens * settings.slots
            params.n_parallel = settings.slots
            params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings.threads
            params.cpuparams.poll = params.cpuparams_batch.poll = 0
            params.n_batch = params.n_ubatch = BATCH_TOKENS + settings.slots
            params.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED  # slower without a GPU
            params.n_cache_reuse = REUSED_TOKENS_MIN
            params.cache_type_k = llama.ggml_type.GGML_TYPE_Q8_0  # a sixth faster behind a long conversation
            params.cache_ram_mib = CACHE_MIB
            params.api_keys = [secrets.token_hex(32)]
            params.endpoint_slots = params.endpoint_props = False
            params.verbosity = -1
            try:
                with _address() as params.hostnames:
                    params.port = 0
                    server = llama.Server(params)
                body = {"messages": [{"role": "user", "content": "Hello."}], "max_tokens": WARM_UP_TOKENS}
                server.handle_chat_completions(body, lambda chunk: False)
            except Exception as error:
                raise EngineError(f"smollm: {path} cannot be used: {error}", code="engine_load_failed") from error
            self.traits, self._marks = _measured(path, settings.context_tokens)
            self._server = server

    def _packaged(self) -> Path:
        path = verified(SMOLLM)
        if not self._settings.reads_faster:
            return path
        return requantized(path, f"{SMOLLM.sha256[:16]}-q8_0.gguf", cache_folder())

    # --- answering ----------------------------------------------------------------------------------------------------

    async def _answer(self, prompt: Prompt, before: Sequence[Run]) -> AsyncGenerator[Piece]:
        limit, longest = prompt.max_output_tokens, self.traits.output_tokens_max
        chars_max = self._settings.answer_chars if limit is None else 0
        run = Run(own_tokens_max=chars_max if chars_max < longest else 0)
        body = {"max_tokens": min(limit or chars_max or longest, longest)}
        written = 0
        async with aclosing(self._stream(chat_of(prompt), self._sampled(prompt, body), run)) as texts:
            async for text in texts:
                fresh = text.lstrip() if not written else text
                if not fresh:
                    continue
                written += len(fresh)
                yield TextPiece(fresh)
                if chars_max and written >= chars_max and fresh.rstrip().endswith(SENTENCE_ENDS):
                    break
        yield run.finish(before)

    def _sampled(self, prompt: Prompt, body: dict[str, Any]) -> dict[str, Any]:
        """With the temperature that was asked for."""
        settings = self._settings
        return {"temperature": settings.temperature if prompt.temperature is None else prompt.temperature, **body}

    # --- calling ------------------------------------------------------------------------------------------------------

    async def _chosen_tool(self, prompt: Prompt, runs: list[Run]) -> FunctionTool | None:
        """The function to call, None for an answer in text. What the model is asked for that joins `runs`."""
        choice = prompt.tool_choice
        if isinstance(choice, ToolChoiceFunction):
            return next((tool for tool in prompt.tools if tool.name == choice.name), None)
        if not prompt.tools or not (
            choice == "required" or (choice == "auto" and await self._wants_call(prompt, runs))
        ):
            return None
        if len(prompt.tools) == 1:
            return prompt.tools[0]
        names = {tool.name: tool for tool in prompt.tools}
        chat = [*chat_of(prompt), line("user", f"Name the function that helps best.\n{_described(prompt.tools)}")]
        alternatives = " | ".join(json.dumps(name) for name in names)
        body = {"grammar": f"root ::= {alternatives}", "max_tokens": self._settings.context_tokens // 8}
        runs.append(run := Run())
        named = "".join([text async for text in self._stream(chat, body, run)])
        return names.get(named.strip(), prompt.tools[0])

    async def _wants_call(self, prompt: Prompt, runs: list[Run]) -> bool:
        """Whether the model, given the choice of how to begin, leans to a call. What a call brought is told in text."""
        margin = self._settings.call_margin
        if margin is None or (prompt.items and isinstance(prompt.items[-1], FunctionCallOutput)):
            return False
        task = f"Your tools:\n{_described(prompt.tools)}\n\n{TOOL_OR_TEXT}"
        chat = chat_of(dataclasses.replace(prompt, instructions=f"{prompt.instructions}\n\n{task}".strip()))
        body = {
            "grammar": TOOL_OR_TEXT_GRAMMAR,
            "max_tokens": 8,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": 40,
        }
        runs.append(run := Run())
        async for _ in self._stream(chat, body, run):
            pass
        return run.odds("tool", "text") >= margin

    async def _call(self, prompt: Prompt, tool: FunctionTool, before: Sequence[Run]) -> AsyncGenerator[Piece]:
        """One call. Raises `EngineError` where the model could not be kept to the tool's schema."""
        task = f"Give the arguments of this function as JSON.\n{_described([tool])}"
        chat = [*chat_of(prompt), line("user", task)]
        schema = {**arguments_schema(tool), "x-guidance": GUIDANCE}
        longest = self.traits.output_tokens_max
        body = {
            "max_tokens": min(prompt.max_output_tokens or longest, longest),
            "grammar": f"%llguidance {{}}\nstart: %json {json.dumps(schema)}",
        }
        run = Run()
        yield CallPiece(tool.name)
        is_kept = False
        async with aclosing(self._stream(chat, self._sampled(prompt, body), run)) as texts:
            async for text in texts:
                is_kept = is_kept or text.lstrip().startswith("{")
                if not is_kept:
                    # A grammar that cannot be built is dropped without a word.
                    raise EngineError(
                        f"smollm: the parameters of function {tool.name!r} are no JSON Schema that can be kept to",
                        code="invalid_tool_schema",
                    )
                yield ArgumentsPiece(text)
        yield run.finish(before)

    # --- the model's thread -------------------------------------------------------------------------------------------

    async def _stream(
        self, chat: Chat, body: dict[str, Any], run: Run, *, is_ahead: bool = False
    ) -> AsyncGenerator[str]:
        """Text as it is written; `run` knows the rest. Leaving early stops the model at its next token."""
        if self._waiting >= WAITING_MAX:
            raise EngineError(f"smollm: {WAITING_MAX} generations are waiting", code="engine_busy")
        # Bounded by `max_tokens`: the model stops by itself, so nobody has to wait in its thread.
        pieces: asyncio.Queue[tuple[str, Counts] | None] = asyncio.Queue()
        self._waiting += not is_ahead
        working = asyncio.ensure_future(self._run(chat, body, run, pieces, is_ahead=is_ahead))
        run.leave_queue = working.cancel

        def ended(working: asyncio.Task[None]) -> None:
            if not working.cancelled():
                working.exception()  # of an answer that was left early nobody asks for it
            self._waiting -= not is_ahead
            self._working.pop(run, None)
            if is_ahead:
                self._preparing = None
            self._say_changed()
            pieces.put_nowait(None)

        working.add_done_callback(ended)
        try:
            while (piece := await pieces.get()) is not None:
                text, run.counts = piece
                yield text
        finally:
            run.is_stopped = run.is_stopped or not working.done()
            if not run.has_begun:
                working.cancel()
        if working.cancelled() and run.is_stopped:
            return  # it has made way before it began
        await working
        run.end()
        if run.error is not None:
            code = "context_length_exceeded" if run.is_too_long else "generation_failed"
            raise EngineError(f"smollm: {run.error}", code=code)

    async def _run(
        self,
        chat: Chat,
        body: dict[str, Any],
        run: Run,
        pieces: asyncio.Queue[tuple[str, Counts] | None],
        *,
        is_ahead: bool,
    ) -> None:
        """From waiting for the model to the end of its thread. Nobody stops this once that has begun, but `run`."""
        loop = asyncio.get_running_loop()

        def say(piece: tuple[str, Counts]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        prompts = self._prompts(chat)
        while not is_ahead and (preparing := self._preparing) is not None:
            # It ends with the step that llama.cpp is at, before which nothing else begins either; what it has computed
            # may be the begin of this very prompt. Is it all of it, nothing is gained by leaving the rest of it undone.
            if not (preparing.has_begun and self._working.get(preparing) == chat):
                preparing.stop()
            await self._change()
        while any(other.is_stopped and known_lines(before, chat) for other, before in self._working.items()):
            # An answer that nobody wants any more still has the slot of this conversation, for one step at most.
            await self._change()
        self._working[run] = chat
        urgency = Urgency.SPARE if is_ahead else URGENCY.get()
        await self._threads.run(urgency, self._work, prompts, {**self._always(), **body}, run, say)

    def _always(self) -> dict[str, Any]:
        """What is asked for every time."""
        return {
            "temperature": self._settings.temperature,
            "repeat_penalty": self._settings.repeat_penalty,
            "stream": True,
            "timings_per_token": True,
            # Chunks while the prompt is computed: without them nothing could stop it before the first token.
            "return_progress": True,
            "cache_prompt": True,
        }

    async def _change(self) -> None:
        """Wait until the model has ended something."""
        change = asyncio.get_running_loop().create_future()
        self._changes.append(change)
        await change

    def _say_changed(self) -> None:
        changes, self._changes = self._changes, []
        for change in changes:
            if not change.done():
                change.set_result(None)

    def _prompts(self, chat: Chat) -> Iterator[Chat]:
        """The chat as it fits into the context, and less of it for each time that the model refuses.

        To keep within the context is the caller's part; only what its count left out (the template, our own words) is
        made room for here, at the cost of the oldest lines. Raises `EngineError` where the lines themselves are more.
        """
        context, count = self.traits.context_tokens, self.traits.count_tokens
        chat = [line(one["role"], self._marks.broken(one["content"])) for one in chat]
        tokens = tokens_of(chat, count)
        if tokens > context:
            message = f"smollm: the conversation has {tokens} tokens, more than the {context} that the model can hold"
            raise EngineError(
                f"{message}; shorten it, or raise the option context_tokens", code="context_length_exceeded"
            )
        room = context - ANSWER_TOKENS_MIN
        return iter([joined(fitting(chat, room >> attempt, count)) for attempt in range(ATTEMPTS_MAX)])

    def _keep_pace(self, run: Run) -> None:
        """In a thread, with every token: let no more answers begin than are written faster than they are spoken."""
        before, run.wrote_at = run.wrote_at, (now := time.monotonic())
        if before is not None:
            self._pace.wrote(now - before, self._threads.running)
            self._threads.allow(self._pace.most)

    def _work(self, prompts: Iterable[Chat], body: dict[str, Any], run: Run, say: Any) -> None:
        """In a thread: run the model, with the next prompt where it refuses one as too long."""

        def take(chunk: Any) -> bool:
            if text := run.take(chunk):
                say((text, run.latest))
                self._keep_pace(run)
            return run.is_stopped

        server = self._server
        run.has_begun = True
        try:
            for messages in prompts:
                if server is None or run.is_stopped:
                    break
                run.error, run.is_too_long = None, False
                slot = self._slots.take(messages)
                try:
                    server.handle_chat_completions({**body, "messages": messages, "id_slot": slot}, take)
                finally:
                    self._slots.give_back(slot)
                if not run.is_too_long:
                    break
        except Exception as error:
            run.error = str(error)


def _traits(context_tokens: int, count_tokens: Callable[[str], int]) -> Traits:
    return Traits(
        context_tokens=context_tokens, output_tokens_max=max(context_tokens // 2, 1), count_tokens=count_tokens
    )


def _measured(path: Path, context_tokens: int) -> tuple[Traits, Marks]:
    """What the model can do and its marks, by its file; guesses where the file's head is of a kind unknown here."""
    try:
        trained = (value for value in metadata(path, [".context_length"]).values() if isinstance(value, int))
        marks, count = Marks(gguf_marks(path)), gguf_tokenizer(path)
    except ValueError:
        return _traits(context_tokens, estimated_tokens), Marks()
    if count is None:
        return _traits(min(context_tokens, *trained), estimated_tokens), marks
    counter = TokenCounter(lambda text: count(marks.broken(text)))
    return _traits(min(context_tokens, *trained), counter), marks


def _described(tools: Iterable[FunctionTool]) -> str:
    return "\n".join(f"{tool.name}: {given(tool.description, None) or ''}".rstrip(": ") for tool in tools)


@contextmanager
def _address() -> Iterator[list[str]]:
    """What the HTTP server is to listen on while it starts; afterwards nothing leads there any more."""
    if not hasattr(socket, "AF_UNIX"):
        yield ["127.0.0.1"]
        return
    with tempfile.TemporaryDirectory(prefix="vivavoce-") as folder:
        path = f"{folder}/closed.sock"
        yield [path if len(path) <= SOCKET_PATH_MAX else "127.0.0.1"]


def create(options: Mapping[str, object]) -> SmolLM:
    """The engine from its options: see `SmolLMSettings`. Raises `SettingsError`."""
    return SmolLM(read_options("smollm", SmolLMSettings, options))
