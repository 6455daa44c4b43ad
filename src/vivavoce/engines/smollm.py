"""The embedded language model: SmolLM2-135M-Instruct on llama.cpp, in this process, streamed.

It shows that the wiring works offline; its answers are simple and often wrong. `tool_choice` "required" or a named
function works by constrained decoding; under "auto" it answers in text only, because deciding on a call is beyond a
model of this size, and no call is better than a wrong one. Any other chat model as GGUF can take its place.

xllamacpp serves HTTP beside the calls that are used here, and cannot be told not to. It listens on a socket file whose
folder is gone once it listens, so that nobody can reach it; where there are no socket files, on a free port of
127.0.0.1. Either way it wants a random key that never leaves this module.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from vivavoce.engines import ArgumentsPiece, CallPiece, Finish, Piece, Prompt, TextPiece, Traits
from vivavoce.engines.options import read_options
from vivavoce.engines.weights import SMOLLM, existing, library, verified
from vivavoce.errors import EngineError
from vivavoce.protocol.base import given
from vivavoce.protocol.config import FunctionTool, ToolChoiceFunction
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputText,
    Message,
    OutputAudio,
    OutputText,
)

__all__ = ["SmolLM", "SmolLMSettings", "create"]

CHARS_PER_TOKEN = 3
"""A cautious guess, to drop the oldest items before the model has to refuse."""
SENTENCE_ENDS = (".", "!", "?")
WARM_UP_TOKENS = 4
ATTEMPTS_MAX = 3
"""How often a prompt is tried that is too long after all, each time with half of it."""
BATCH_TOKENS = 64
"""How much of a prompt is computed before llama.cpp looks whether to go on: about half a second on one slow core."""
CACHE_MIB = 128
"""Memory for prompts that lost their slot; llama.cpp's own limit is 8 GiB."""
WAITING_MAX = 64
"""Generations at once, those waiting for a slot included."""
SOCKET_PATH_MAX = 100
"""A socket's path has to fit into 104 bytes on some systems."""

Chat = list[dict[str, str]]


class SmolLMSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the engine.

    `model`: path of a GGUF file; None is the packaged one. `threads`: one is half as fast as two on an idle machine of
    two cores, and twenty times as fast on a busy one, because llama.cpp's threads wait for each other. `slots`:
    conversations whose prompt stays computed. `answer_chars`: an answer without a limit of the client's ends at the
    first sentence behind this many characters, since it is spoken, and after as many tokens at the latest; 0 means
    that the model decides. `temperature` 0 takes the likeliest word, which keeps the packaged model to the point.
    """

    model: str | None = None
    threads: Annotated[int, Meta(ge=1)] = 1
    context_tokens: Annotated[int, Meta(ge=256)] = 2048
    slots: Annotated[int, Meta(ge=1, le=WAITING_MAX)] = 4
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.0
    repeat_penalty: Annotated[float, Meta(ge=1, le=2)] = 1.05
    answer_chars: Annotated[int, Meta(ge=0)] = 240


class SmolLM:
    """The engine. Nothing is loaded before `warm_up`."""

    def __init__(self, settings: SmolLMSettings | None = None) -> None:
        self._settings = settings or SmolLMSettings()
        self.traits = Traits(
            context_tokens=self._settings.context_tokens, output_tokens_max=self._settings.context_tokens // 2
        )
        self._model = existing(self._settings.model, "smollm", "model") if self._settings.model else None
        self._server: Any = None
        self._loading = threading.Lock()
        self._threads = ThreadPoolExecutor(self._settings.slots, thread_name_prefix="smollm")
        self._waiting = 0

    async def warm_up(self) -> None:
        """Load, and answer once. Raises `EngineMissing`, or `EngineError` where the file cannot be used."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._load)

    async def generate(self, prompt: Prompt) -> AsyncIterator[Piece]:
        """The answer as it is written. Raises `EngineError` before `warm_up`, and where the model refuses."""
        if self._server is None:
            raise EngineError("smollm: not warmed up", code="engine_not_ready")
        tool = await self._chosen_tool(prompt)
        if tool is None:
            async for piece in self._answer(prompt):
                yield piece
            return
        async for piece in self._call(prompt, tool):
            yield piece

    async def close(self) -> None:
        """Free the model, after what is being generated."""
        server, self._server = self._server, None
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)
        del server

    # --- loading ------------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        with self._loading:
            if self._server is not None:
                return
            llama = library("xllamacpp")
            path = self._model or verified(SMOLLM)
            settings = self._settings
            params = llama.CommonParams()
            params.model.path = str(path)
            params.n_ctx = settings.context_tokens * settings.slots
            params.n_parallel = settings.slots
            params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings.threads
            params.cpuparams.poll = params.cpuparams_batch.poll = 0
            params.n_batch = params.n_ubatch = BATCH_TOKENS
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
            self._server = server

    # --- answering ----------------------------------------------------------------------------------------------------

    async def _answer(self, prompt: Prompt) -> AsyncIterator[Piece]:
        limit = prompt.max_output_tokens
        chars_max = self._settings.answer_chars if limit is None else 0
        longest = self._settings.context_tokens // 2
        body = {"max_tokens": min(limit or chars_max or longest, longest)}
        written = 0
        run = _Run()
        async for text in self._stream(_chat(prompt), body, run):
            fresh = text.lstrip() if not written else text
            if not fresh:
                continue
            written += len(fresh)
            yield TextPiece(fresh)
            if chars_max and written >= chars_max and fresh.rstrip().endswith(SENTENCE_ENDS):
                run.stop()
                break
        yield run.finish()

    # --- calling ------------------------------------------------------------------------------------------------------

    async def _chosen_tool(self, prompt: Prompt) -> FunctionTool | None:
        tools = [tool for tool in prompt.tools if isinstance(tool, FunctionTool)]
        choice = prompt.tool_choice
        if isinstance(choice, ToolChoiceFunction):
            return next((tool for tool in tools if tool.name == choice.name), None)
        if choice != "required" or not tools:
            return None
        if len(tools) == 1:
            return tools[0]
        names = {tool.name: tool for tool in tools}
        chat = _with_task(_chat(prompt), f"Name the function that helps best.\n{_described(tools)}")
        alternatives = " | ".join(json.dumps(name) for name in names)
        body = {"grammar": f"root ::= {alternatives}", "max_tokens": self._settings.context_tokens // 8}
        run = _Run()
        named = "".join([text async for text in self._stream(chat, body, run)])
        return names.get(named.strip(), tools[0])

    async def _call(self, prompt: Prompt, tool: FunctionTool) -> AsyncIterator[Piece]:
        chat = _with_task(_chat(prompt), f"Give the arguments of this function as JSON.\n{_described([tool])}")
        schema = given(tool.parameters, None) or {"type": "object", "properties": {}}
        longest = self._settings.context_tokens // 4
        body = {
            "max_tokens": min(prompt.max_output_tokens or longest, longest),
            "response_format": {"type": "json_schema", "json_schema": {"schema": schema}},
        }
        run = _Run()
        yield CallPiece(tool.name)
        async for text in self._stream(chat, body, run):
            yield ArgumentsPiece(text)
        yield run.finish()

    # --- the model's thread -------------------------------------------------------------------------------------------

    async def _stream(self, chat: Chat, body: dict[str, Any], run: _Run) -> AsyncIterator[str]:
        """Text as it is written; `run` knows the rest. Leaving early stops the model at its next token."""
        if self._waiting >= WAITING_MAX:
            raise EngineError(f"smollm: {WAITING_MAX} generations are waiting", code="engine_busy")
        loop = asyncio.get_running_loop()
        # Bounded by `max_tokens`: the model stops by itself, so nobody has to wait in its thread.
        pieces: asyncio.Queue[str | None] = asyncio.Queue()

        def say(piece: str | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        settings = self._settings
        body = {
            **body,
            "stream": True,
            "timings_per_token": True,
            # Chunks while the prompt is computed: without them nothing could stop it before the first token.
            "return_progress": True,
            "cache_prompt": True,
            "temperature": settings.temperature,
            "repeat_penalty": settings.repeat_penalty,
        }
        chars_max = max(settings.context_tokens - body["max_tokens"], 1) * CHARS_PER_TOKEN
        self._waiting += 1
        working = loop.run_in_executor(self._threads, self._work, chat, chars_max, body, run, say)
        working.add_done_callback(self._leave)
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
        finally:
            run.stop()
        await working
        if run.error is not None:
            raise EngineError(f"smollm: {run.error}", code="generation_failed")

    def _leave(self, _: object) -> None:
        self._waiting -= 1

    def _work(self, chat: Chat, chars_max: int, body: dict[str, Any], run: _Run, say: Any) -> None:
        """In a thread: run the model; a prompt that is too long after all is cut to half and tried again."""

        def take(chunk: Any) -> bool:
            if text := run.take(chunk):
                say(text)
            return run.is_stopped

        server = self._server
        try:
            for attempt in range(ATTEMPTS_MAX):
                if server is None or run.is_stopped:
                    break
                run.error = None
                messages = _joined(_fitting(chat, chars_max >> attempt))
                server.handle_chat_completions({**body, "messages": messages}, take)
                if not run.is_too_long:
                    break
        except Exception as error:
            run.error = str(error)
        finally:
            say(None)


@contextmanager
def _address() -> Iterator[list[str]]:
    """What the HTTP server is to listen on while it starts; afterwards nothing leads there any more."""
    if not hasattr(socket, "AF_UNIX"):
        yield ["127.0.0.1"]
        return
    with tempfile.TemporaryDirectory(prefix="vivavoce-") as folder:
        path = f"{folder}/closed.sock"
        yield [path if len(path) <= SOCKET_PATH_MAX else "127.0.0.1"]


class _Run:
    """One generation: how it goes, told by the model's chunks; `stop` is heard at its next token."""

    def __init__(self) -> None:
        self.error: str | None = None
        self.pieces = 0
        self.is_stopped = False
        self._reason: Literal["stop", "length"] = "stop"
        self._counts: dict[str, Any] = {}

    @property
    def is_too_long(self) -> bool:
        """Whether the model refused because the prompt does not fit."""
        return self.error is not None and "context" in self.error and not self.pieces

    def stop(self) -> None:
        """End it."""
        self.is_stopped = True

    def take(self, chunk: dict[str, Any]) -> str:
        """Note what a chunk says; its text, if it has any."""
        if (error := chunk.get("error")) is not None or "message" in chunk:
            self.error = str(error.get("message") if isinstance(error, dict) else error or chunk["message"])
            return ""
        self._counts = chunk.get("timings") or self._counts
        for choice in chunk.get("choices", ()):
            if choice.get("finish_reason") == "length":
                self._reason = "length"
            if text := choice.get("delta", {}).get("content"):
                self.pieces += 1
                return str(text)
        return ""

    def finish(self) -> Finish:
        """The last piece, with the counts of the last chunk."""
        cached = int(self._counts.get("cache_n", 0))
        return Finish(
            reason=self._reason,
            input_tokens=cached + int(self._counts.get("prompt_n", 0)),
            cached_tokens=cached,
            output_tokens=int(self._counts.get("predicted_n", self.pieces)),
        )


# --- the prompt as a chat ---------------------------------------------------------------------------------------------


def _chat(prompt: Prompt) -> Chat:
    """System message first, then the items."""
    chat = [_line("system", prompt.instructions)] if prompt.instructions else []
    for item in prompt.items:
        match item:
            case Message():
                if text := "".join(_texts(item)).strip():
                    chat.append(_line(item.role, text))
            case FunctionCall():
                chat.append(_line("assistant", f"I call {item.name} with {item.arguments}."))
            case FunctionCallOutput():
                chat.append(_line("user", f"The function answered: {item.output}\nTell me what that means."))
    return chat


def _line(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def _texts(message: Message) -> Iterable[str]:
    for part in message.content:
        match part:
            case InputText() | OutputText():
                yield part.text
            case InputAudio() | OutputAudio():
                yield given(part.transcript, None) or ""


def _with_task(chat: Chat, task: str) -> Chat:
    return [*chat, _line("user", task)]


def _described(tools: Iterable[FunctionTool]) -> str:
    return "\n".join(f"{tool.name}: {given(tool.description, None) or ''}".rstrip(": ") for tool in tools)


def _fitting(chat: Chat, chars_max: int) -> Chat:
    """Without the oldest lines that do not fit. The system message stays, and of the last line what fits."""
    head = chat[:1] if chat and chat[0]["role"] == "system" else []
    rest = chat[len(head) :]
    left = chars_max - sum(len(line["content"]) for line in head)
    while len(rest) > 1 and sum(len(line["content"]) for line in rest) > left:
        rest = rest[1:]
    return [*head, *(_line(line["role"], line["content"][-max(left, 1) :]) for line in rest)]


def _joined(chat: Chat) -> Chat:
    """Neighbours of one role as one line: the model was taught that roles take turns."""
    joined: Chat = []
    for line in chat:
        if joined and joined[-1]["role"] == line["role"]:
            joined[-1] = _line(line["role"], f"{joined[-1]['content']}\n{line['content']}")
        else:
            joined.append(line)
    return joined


def create(options: Mapping[str, object]) -> SmolLM:
    """The engine from its options: see `SmolLMSettings`. Raises `SettingsError`."""
    return SmolLM(read_options("smollm", SmolLMSettings, options))
