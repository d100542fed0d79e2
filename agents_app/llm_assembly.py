"""One answer, put together from the chunks of an OpenAI-compatible model, tolerantly. Pure."""

from __future__ import annotations

import json
from typing import Any

from agents_app.llm_events import loads
from agents_app.llm_failures import failure_told
from agents_app.llm_likeness import UNKNOWN, Likeness, text_of_all, text_within
from agents_app.llm_types import Answer, RequestedCall, Usage
from sessions_app.conf import settings
from sessions_app.errors import AnswerTooLong, LLMFault, LLMGarbage, LLMOutputLimit, LLMRefused

JSON = dict[str, Any]
UNLIKE_AT_END = 4  # events that end an answer, after those that are all alike
MOST_BYTES = 6  # of a character: U+0000, which no database keeps, is written as six
CALL_BYTES = 64  # what even an empty call counts for in the size of an answer
ENDED_BADLY: dict[str, type[LLMFault]] = {
    "length": LLMOutputLimit,
    "content_filter": LLMRefused,
    "error": LLMFault,
}


class Assembly:
    """Takes chunks in with `add_event` as they came or with `add`, a whole answer with `add_whole`; all return the text
    that is new."""

    __slots__ = (
        "_after", "_before", "_by_index", "_calls", "_legacy", "_likeness", "_most_bytes", "_reasoning", "_size_bytes",
        "_text", "finish_reason", "model", "seen", "usage",
    )  # fmt: skip

    def __init__(self) -> None:
        self.finish_reason = ""
        self.model = ""
        self.usage = Usage()
        self.seen = False  # a choice has come: this is a model's answer, whatever becomes of it
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._size_bytes = 0
        self._most_bytes = settings.MAX_ANSWER_BYTES
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._legacy: _Call | None = None
        self._likeness = Likeness()
        self._note_likeness()

    def add_event(self, event: bytes) -> str:
        """A chunk as JSON."""
        text = self._likeness.text_in(event) if self._likeness.bare is not UNKNOWN else None
        return self._add_unlike(event) if text is None else self._add_alike(text)

    def add_framed(self, data: bytes) -> str | None:
        """An event with its framing whose chunk is like those before it; None, and nothing is added, for any other."""
        text = text_within(data, self._before, self._after)
        return None if text is None else self._add_alike(text)

    def add_all_framed(self, data: bytes) -> tuple[int, str]:
        """As `add_framed` for several events: how many there are, where all are like those before them, and their text;
        none for any other, and nothing is added."""
        if not self._before or not data.startswith(self._before) or not data.endswith(b"\n\n"):
            return 0, ""
        _, after = self._likeness.bare  # their framing's end is what parts them
        events = data[:-2].split(b"\n\n")
        return self._added(events, text_of_all(events, self._before, after))

    @property
    def knows_what_is_alike(self) -> bool:
        return self._likeness.bare is not UNKNOWN

    def add_alike(self, events: list[bytes]) -> tuple[int, str]:
        """How many of the first events are like those before them, as far as one look at all of them tells, and their
        text, which is added; the others are for `add_event`."""
        before, after = self._likeness.bare
        count, least = len(events), len(events) - UNLIKE_AT_END
        while count > least and count and not events[count - 1].endswith(after):
            count -= 1
        if count < 2:
            return 0, ""
        return self._added(events[:count], text_of_all(events[:count], before, after))

    def _added(self, events: list[bytes], text: str | None) -> tuple[int, str]:
        """Near the bound each event must be looked at by itself: the text before it is shown."""
        if text is None or self._size_bytes + len(text) * MOST_BYTES > self._most_bytes:
            return 0, ""
        return len(events), self._add_alike(text)

    def _add_alike(self, text: str) -> str:
        # As `_plain` and `_keep`, without their calls for each token.
        if "\x00" in text:
            text = _plain(text)
        self._size_bytes += len(text) if text.isascii() else len(text.encode())
        if self._size_bytes > self._most_bytes:
            raise AnswerTooLong(limit=self._most_bytes)
        self._text.append(text)
        return text

    def _note_likeness(self) -> None:
        """Keeps here what is known of events with their framing: two objects less to look at, for each token."""
        self._before, self._after = self._likeness.framed

    def _add_unlike(self, event: bytes) -> str:
        """A chunk that is like none before it; the next ones may be like it, where its text was all that counted."""
        chunk = loads(event)
        text = self.add(chunk)
        if text and not chunk.get("usage"):
            [choice, *others] = chunk["choices"]
            delta, ends = choice.get("delta"), choice.get("finish_reason") is not None
            if not others and not ends and delta and len(delta) == 1 and type(delta.get("content")) is str:
                self._likeness.learn(event, chunk, delta)
                self._note_likeness()
        return text

    def add(self, chunk: Any) -> str:
        choice = self._choice(chunk)
        if choice is None:
            return ""
        part = choice["delta"] if "delta" in choice else choice.get("message")
        return self._take(choice, part, whole="delta" not in choice)

    def add_whole(self, answer: Any) -> str:
        choice = self._choice(answer)
        if choice is None:
            raise LLMGarbage(reason="no choices")
        text = self._take(choice, choice.get("message"), whole=True)
        self.finish_reason = self.finish_reason or "stop"
        return text

    def text(self) -> str:
        return "".join(self._text)

    def answer(self) -> Answer:
        """The answer, or the fault that its finish reason stands for."""
        if self.finish_reason in ENDED_BADLY:
            raise ENDED_BADLY[self.finish_reason](reason=f"finish_reason {self.finish_reason}")
        calls = self._calls or ([self._legacy] if self._legacy else [])
        requested = [call.requested() for call in calls]
        reasoning = "".join(self._reasoning)
        return Answer(self.text(), reasoning, requested, self.usage, self.model, self.finish_reason or "stop")

    def _choice(self, chunk: Any) -> JSON | None:
        """The first choice, if any, after everything that stands beside the choices."""
        if not isinstance(chunk, dict):
            raise LLMGarbage(reason="chunk is no object")
        if chunk.get("error") or chunk.get("object") == "error":
            raise failure_told(chunk.get("error") or chunk)
        if chunk.get("usage"):
            self.usage = _usage(chunk["usage"])
        model = chunk.get("model")
        if model != self.model and isinstance(model, str):
            self.model = _plain(model)
            self._likeness.forget()
            self._note_likeness()
        choices = chunk.get("choices") or []
        if not isinstance(choices, list):
            raise LLMGarbage(reason="choices of a wrong type")
        first = None
        for choice in choices:
            if not isinstance(choice, dict):
                raise LLMGarbage(reason="choices of a wrong type")
            if first is None and choice.get("index") in (0, None):
                first = choice
        return first

    def _take(self, choice: JSON, part: Any, *, whole: bool) -> str:
        self.seen = True
        if (reason := choice.get("finish_reason")) is not None:
            self.finish_reason = _typed(reason, str) or self.finish_reason
        if not (part := _typed(part, dict)):
            return ""
        text = _text(part.get("content"))
        if len(part) == 1 and text:  # as nearly all are: text and nothing beside it
            self._keep(self._text, text)
            return text
        if (refusal := part.get("refusal")) is not None:
            text += _plain(_typed(refusal, str))
        if text:
            self._keep(self._text, text)
        if reasoning := part.get("reasoning_content") or part.get("reasoning"):
            self._keep(self._reasoning, _plain(reasoning) if isinstance(reasoning, str) else "")
        if (fragments := part.get("tool_calls")) is not None:
            for fragment in _typed(fragments, list):
                if fragment is not None:
                    self._fragment(_typed(fragment, dict), whole=whole)
        if legacy := _typed(part.get("function_call"), dict):
            self._legacy = self._legacy or _Call()
            self._append(self._legacy, legacy)
        return text

    def _fragment(self, fragment: JSON, *, whole: bool) -> None:
        index, call_id = fragment.get("index"), _plain(_typed(fragment.get("id"), str) or "")
        function = _typed(fragment.get("function"), dict) or {}
        if type(index) is not int:
            index = None
        call = None if whole else self._continued(index, call_id, function)
        if call is None:
            call = _Call()
            self._count(CALL_BYTES)
            self._calls.append(call)
        if index is not None:
            self._by_index[index] = call
        call.id = call.id or call_id
        self._append(call, function)

    def _continued(self, index: int | None, call_id: str, function: JSON) -> _Call | None:
        """The call that a fragment goes on with: the one at its index, else with its id, else the last one.

        None where it begins another: providers send parallel calls under one index, or without any.
        """
        if index is not None:
            at_index = self._by_index.get(index)
            if at_index is None:
                return None  # an index of its own is a call of its own, even under an id that was used
            if not call_id or not at_index.id or call_id == at_index.id:
                return None if _begins_another(at_index, call_id, function) else at_index
        if call_id:
            return next((call for call in self._calls if call.id == call_id), None)
        last = self._calls[-1] if self._calls else None
        return None if last is None or _begins_another(last, call_id, function) else last

    def _append(self, call: _Call, function: JSON) -> None:
        name = _plain(_typed(function.get("name"), str) or "")
        if name != "".join(call.name):  # some repeat the whole name in every fragment
            self._keep(call.name, name)
        arguments = function.get("arguments")
        if arguments is not None:
            text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
            self._keep(call.arguments, _plain(text))

    def _keep(self, where: list[str], text: str) -> None:
        if text:
            self._count(len(text) if text.isascii() else len(text.encode()))
            where.append(text)

    def _count(self, size_bytes: int) -> None:
        self._size_bytes += size_bytes
        if self._size_bytes > self._most_bytes:
            raise AnswerTooLong(limit=self._most_bytes)


class _Call:
    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id = ""
        self.name: list[str] = []
        self.arguments: list[str] = []

    def is_whole(self) -> bool:
        try:
            return isinstance(json.loads("".join(self.arguments)), dict)
        except (ValueError, RecursionError):
            return False

    def requested(self) -> RequestedCall:
        arguments = "".join(self.arguments)
        return RequestedCall(self.id, "".join(self.name), arguments if arguments.strip() else "{}")


def _begins_another(call: _Call, call_id: str, function: JSON) -> bool:
    """A name without an id, after arguments that are whole: the next call."""
    return bool(function.get("name")) and not call_id and call.is_whole()


def _text(content: Any) -> str:
    """Text, or the text parts that some providers send instead."""
    if type(content) is str:
        return _plain(content)
    if not isinstance(content, list):
        return _typed(content, str) or ""
    parts = [part.get("text") if isinstance(part, dict) else part for part in content]
    return _plain("".join(part for part in parts if isinstance(part, str)))


def _plain(text: str) -> str:
    """PostgreSQL stores no NUL; the six characters that JSON writes for it say as much."""
    return text.replace("\x00", "\\u0000") if "\x00" in text else text


def _typed(value: Any, wanted: type) -> Any:
    if type(value) is not wanted and value is not None:
        raise LLMGarbage(reason="a value of a wrong type")
    return value


def _usage(told: Any) -> Usage:
    told = told if isinstance(told, dict) else {}
    prompt, completion = _tokens(told.get("prompt_tokens")), _tokens(told.get("completion_tokens"))
    total = _tokens(told.get("total_tokens"))
    return Usage(prompt, completion, total or prompt + completion)


def _tokens(value: Any) -> int:
    return min(value, 2**31 - 1) if type(value) is int and value > 0 else 0
