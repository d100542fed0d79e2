"""The built-in demo model `fake-llm`: OpenAI's stream of chunks made by deterministic rules, no network, no upstream.

It routes, streams word by word, asks for the tools it is offered, and sums up what they answered, so that the whole
product can be felt offline. At most one round of tools for a message of a person.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from agents_app import demo_files, demo_requests, demo_results, demo_texts, routing
from sessions_app.conf import settings

MODEL = "fake-llm"


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    text: str
    calls: tuple[Call, ...] = ()
    paced: bool = field(default=True, kw_only=True)


async def chunks(body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """`chat.completion.chunk` objects of the answer to an OpenAI request body, usage in a last one without choices."""
    messages = [message for message in body.get("messages") or [] if isinstance(message, dict)]
    answer = reply(messages, _offered(body))
    pause_seconds = settings.DEMO_MODEL_WORD_SECONDS if answer.paced else 0
    head = {"id": f"chatcmpl-demo-{len(messages)}", "object": "chat.completion.chunk", "created": 0, "model": MODEL}
    yield {**head, "choices": [_choice({"role": "assistant", "content": ""})]}
    for delta in _deltas(answer, len(messages)):
        if pause_seconds:
            await asyncio.sleep(pause_seconds)
        yield {**head, "choices": [_choice(delta)]}
    yield {**head, "choices": [_choice({}, "tool_calls" if answer.calls else "stop")]}
    yield {**head, "choices": [], "usage": _usage(body, answer)}


def _choice(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason}


def _deltas(answer: Reply, message_count: int) -> Iterator[dict[str, Any]]:
    yield from ({"content": word} for word in _words(answer.text))
    for index, call in enumerate(answer.calls):
        opening = {"name": call.name, "arguments": ""}
        yield {
            "tool_calls": [
                {"index": index, "id": f"call_{message_count}_{index}", "type": "function", "function": opening}
            ]
        }
        for part in _words(json.dumps(call.arguments, ensure_ascii=False)):
            yield {"tool_calls": [{"index": index, "function": {"arguments": part}}]}


def _words(text: str) -> list[str]:
    """The text cut before each word, so that joining gives it back."""
    return re.findall(r"\s*\S+|\s+\Z", text)


def _usage(body: dict[str, Any], answer: Reply) -> dict[str, int]:
    """Four characters a token: rough, and the same every time."""
    asked = len(json.dumps([body.get("messages"), body.get("tools")], ensure_ascii=False, default=str))
    said = len(answer.text) + sum(len(call.name) + len(json.dumps(call.arguments)) for call in answer.calls)
    prompt, completion = max(1, asked // 4), max(1, said // 4)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _offered(body: dict[str, Any]) -> frozenset[str]:
    functions = (tool.get("function") for tool in body.get("tools") or [] if isinstance(tool, dict))
    return frozenset(
        str(function["name"]) for function in functions if isinstance(function, dict) and "name" in function
    )


def reply(messages: list[dict[str, Any]], offered: frozenset[str]) -> Reply:
    """What the demo model says to this history with these tools."""
    question, after = _last_exchange(messages)
    if not offered and _is_classifier(messages):
        return Reply(_verdict(question), paced=False)
    request = demo_requests.understand(question)
    results = demo_results.collect(after)
    switched = any(result.tool == "switch_mode" for result in results)
    if any(result.tool != "switch_mode" for result in results):
        return Reply(demo_results.summary(request, [result for result in results if result.tool != "switch_mode"]))
    return _act(request, offered - {"switch_mode"} if switched else offered)


def _last_exchange(messages: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """The last message of the person, and everything after it."""
    for position in range(len(messages) - 1, -1, -1):
        if messages[position].get("role") == "user":
            return demo_results.text_of(messages[position].get("content")), messages[position + 1 :]
    return "", []


def _is_classifier(messages: list[dict[str, Any]]) -> bool:
    first = messages[0] if messages else {}
    return first.get("role") == "system" and "classifier" in demo_results.text_of(first.get("content"))[:200].lower()


def _verdict(question: str) -> str:
    """The keywords' verdict on the request that `routing.request` quoted."""
    quoted = question.rsplit("\nRequest: ", 1)[-1].removeprefix("Request: ")
    try:
        text = json.loads(quoted)
    except ValueError:
        text = quoted
    verdict = routing.keywords(str(text), recent_agents=_recent_agents(question))
    return json.dumps(
        {"agent": verdict.agent, "confidence": "high", "reasoning": verdict.reasoning}, ensure_ascii=False
    )


def _recent_agents(question: str) -> list[str]:
    found = re.match(r"Recent agents, oldest first: ([^\n]{1,300})", question)
    return [name.strip() for name in found[1].split(",")] if found else []


def _act(request: demo_requests.Request, offered: frozenset[str]) -> Reply:
    """The tools that fulfil the wish, or words when this agent has none for it."""
    planned = _planned(request)
    if planned is None:
        return Reply(demo_texts.answer(request, _speaker(request, offered)))
    if planned and all(_allowed(call, offered) for call in planned):
        return Reply(demo_texts.before(request, [call.name for call in planned]), planned)
    if planned and "switch_mode" in offered:
        reason = demo_texts.pick(request, "switch_reason")
        return Reply(demo_texts.pick(request, "switching"), (Call("switch_mode", {"mode": "coder", "reason": reason}),))
    return Reply(demo_texts.pick(request, "no_tool" if planned else f"ask_{request.wish}"))


def _speaker(request: demo_requests.Request, offered: frozenset[str]) -> str:
    """The agent that speaks; the one with all tools answers as whoever the words ask for."""
    speaker = demo_texts.persona(offered)
    return routing.keywords(request.text).agent if speaker == "coder" else speaker


def _allowed(call: Call, offered: frozenset[str]) -> bool:
    """Offered, and a writer that runs nothing is the architect, who writes markdown only."""
    if call.name == "write_file" and "execute_command" not in offered:
        return "write_file" in offered and str(call.arguments["path"]).lower().endswith(".md")
    return call.name in offered


def _planned(request: demo_requests.Request) -> tuple[Call, ...] | None:
    """The calls for a wish; empty when it lacks something to ask for, None when words are the answer."""
    paths = request.paths
    if request.wish == "compare":
        return tuple(Call("read_file", {"path": path}) for path in paths[:2])
    if request.wish in ("read", "look", "edit"):
        if paths:
            return tuple(Call("read_file", {"path": path}) for path in paths[:2])
        return () if request.wish == "read" else None
    if request.wish == "list":
        return (Call("list_files", {"path": "."}),)
    if request.wish == "mkdir":
        return tuple(Call("create_directory", {"path": path}) for path in _folder(request))
    if request.wish == "write":
        return _written(request)
    return _looked_or_run(request)


def _looked_or_run(request: demo_requests.Request) -> tuple[Call, ...] | None:
    if request.wish == "search":
        query = demo_requests.searched(request.text)
        return (Call("search_in_code", {"query": query}),) if query else ()
    if request.wish == "run":
        command = demo_requests.command(request.text)
        return (Call("execute_command", {"command": command}),) if command else ()
    return None


def _folder(request: demo_requests.Request) -> list[str]:
    last = request.text.split()[-1].strip("\"'`«».,!?/")
    is_named = re.fullmatch(r"[\w./-]{1,100}", last) and last.lower() not in ("folder", "directory", "папку", "каталог")
    return [last] if is_named else []


def _written(request: demo_requests.Request) -> tuple[Call, ...] | None:
    """A named file, a default name for a nameless script; other writing is an answer in words."""
    text = request.text.lower()
    if request.paths:
        path = request.paths[0]
    elif re.search(r"script|скрипт|program|программ", text):
        path = "demo.py"
    else:
        return () if re.search(r"\bfile\b|файл", text) else None
    return (Call("write_file", {"path": path, "content": demo_files.content(request, path)}),)
