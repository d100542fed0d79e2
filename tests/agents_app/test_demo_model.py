"""The demo model: which calls a request brings, what it says afterwards, and chunks that a client of OpenAI accepts."""

import json
from typing import Any

import pytest

from agents_app import agents, demo_model, demo_requests, routing, tools

Body = dict[str, Any]


@pytest.fixture(autouse=True)
def _no_pause(settings):
    settings.DEMO_MODEL_WORD_SECONDS = 0


def body(agent: str, *messages: Body) -> Body:
    chosen = agents.get(agent)
    offered = [tools.openai_schema(tool) for tool in tools.offered(chosen)]
    return {
        "model": "fake-llm",
        "messages": [{"role": "system", "content": chosen.prompt}, *messages],
        **({"tools": offered} if offered else {}),
    }


def user(text: str) -> Body:
    return {"role": "user", "content": text}


async def answer(asked: Body) -> Body:
    """The whole message assembled from the chunks, each of them checked against OpenAI's shape."""
    text, calls, finish, usage = "", {}, None, None
    async for chunk in demo_model.chunks(asked):
        assert (chunk["object"], chunk["model"]) == ("chat.completion.chunk", "fake-llm")
        assert isinstance(chunk["id"], str)
        assert isinstance(chunk["created"], int)
        json.dumps(chunk)
        assert usage is None, "nothing follows the usage"
        usage = chunk.get("usage")
        assert (usage is None) == (len(chunk["choices"]) == 1)
        for choice in chunk["choices"]:
            assert choice["index"] == 0
            assert finish is None, "nothing follows the finish"
            finish = choice["finish_reason"]
            text += choice["delta"].get("content", "")
            for part in choice["delta"].get("tool_calls", []):
                call = calls.setdefault(part["index"], {"id": part.get("id"), "name": "", "arguments": ""})
                call["name"] += part["function"].get("name", "")
                call["arguments"] += part["function"]["arguments"]
    assert finish == ("tool_calls" if calls else "stop")
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
    return {"text": text, "calls": list(calls.values())}


async def called(agent: str, text: str) -> list[tuple[str, Body]]:
    calls = (await answer(body(agent, user(text))))["calls"]
    return [(call["name"], json.loads(call["arguments"])) for call in calls]


CALLS = [
    ("read README.md", [("read_file", {"path": "README.md"})]),
    ("прочитай файл src/main.dart", [("read_file", {"path": "src/main.dart"})]),
    ("прочитай файл x", [("read_file", {"path": "x"})]),
    ("show me `config.py`, please", [("read_file", {"path": "config.py"})]),
    ("открой ./lib/a-b.dart.", [("read_file", {"path": "./lib/a-b.dart"})]),
    ("read the README", [("read_file", {"path": "README.md"})]),
    ("what's in Dockerfile?", [("read_file", {"path": "Dockerfile"})]),
    ("hello.py падает, почему?", [("read_file", {"path": "hello.py"})]),
    ("fix the bug in calc.py", [("read_file", {"path": "calc.py"})]),
    ("напиши юнит тесты для calc.py", [("read_file", {"path": "calc.py"})]),
    ("compare a.py and b.py", [("read_file", {"path": "a.py"}), ("read_file", {"path": "b.py"})]),
    ("сравни a и b", [("read_file", {"path": "a"}), ("read_file", {"path": "b"})]),
    ("чем отличается a.py от b.py", [("read_file", {"path": "a.py"}), ("read_file", {"path": "b.py"})]),
    ("list files", [("list_files", {"path": "."})]),
    ("покажи файлы", [("list_files", {"path": "."})]),
    ("search TODO", [("search_in_code", {"query": "TODO"})]),
    ("найди, где используется get_user", [("search_in_code", {"query": "get_user"})]),
    ('grep "def main"', [("search_in_code", {"query": "def main"})]),
    ("where is AuthService used?", [("search_in_code", {"query": "AuthService"})]),
    ("run pytest -q", [("execute_command", {"command": "pytest -q"})]),
    ("запусти тесты", [("execute_command", {"command": "python -m pytest -q"})]),
    ("run `git status`", [("execute_command", {"command": "git status"})]),
    ("создай папку docs/api", [("create_directory", {"path": "docs/api"})]),
    ("read a file", []),
    ("создай файл", []),
    ("run", []),
    ("search", []),
    ("create a folder", []),
    ("hi", []),
    ("как работает Provider", []),
    ("design a billing service", []),
    ("сравни redux и bloc", []),
    ("и/или что лучше", []),
    ("read https://example.com/a.html", []),
    ("", []),
]


@pytest.mark.parametrize(("text", "expected"), CALLS)
async def test_a_request_brings_its_calls(text, expected):
    assert await called("coder", text) == expected


@pytest.mark.parametrize(
    ("text", "path", "content"),
    [
        ("write hello.py that prints hi", "hello.py", 'print("hi")'),
        ("напиши hello.js, который выводит «привет»", "hello.js", 'console.log("привет");'),
        ('write a script that prints "it\'s"', "demo.py", 'print("it\'s")'),
        ("create run.sh that prints it's", "run.sh", "echo 'it'\"'\"'s'"),
        ("создай файл notes.md", "notes.md", "# Notes"),
        ("add a hello.txt file", "hello.txt", "Hello!"),
        ("create conf.json", "conf.json", '"version"'),
    ],
)
async def test_writing_brings_a_whole_plausible_file(text, path, content):
    [(name, arguments)] = await called("coder", text)
    assert (name, arguments["path"]) == ("write_file", path)
    assert content in arguments["content"]
    assert arguments["content"].endswith("\n")


async def test_written_python_compiles():
    [(_, arguments)] = await called("coder", 'write hello.py that prints it\'s "quoted" \\ {braces}')
    compile(arguments["content"], "hello.py", "exec")


@pytest.mark.parametrize(
    ("agent", "text", "tool"),
    [
        ("ask", "write hello.py that prints hi", "switch_mode"),
        ("debug", "создай файл notes.md", "switch_mode"),
        ("architect", "write hello.py", "switch_mode"),
        ("architect", "write docs/plan.md", "write_file"),
        ("ask", "run pytest", "switch_mode"),
        ("debug", "run pytest", "execute_command"),
        ("ask", "read a.py", "read_file"),
    ],
)
async def test_an_agent_without_the_tool_hands_over_to_the_coder(agent, text, tool):
    [(name, arguments)] = await called(agent, text)
    assert name == tool
    assert arguments.get("mode", "coder") == "coder"


async def test_without_tools_it_answers_in_words():
    got = await answer({"messages": [user("read README.md")]})
    assert got["calls"] == []
    assert got["text"]


@pytest.mark.parametrize("agent", ["coder", "architect", "debug", "ask"])
@pytest.mark.parametrize(("text", "_expected"), CALLS)
async def test_every_call_passes_the_runtimes_own_check(agent, text, _expected):
    for name, arguments in await called(agent, text):
        tools.check(agents.get(agent), name, arguments)


async def turn(agent: str, text: str, *results: str) -> Body:
    """The answer after the calls for `text` were answered with these results."""
    asked = body(agent, user(text))
    calls = (await answer(asked))["calls"]
    assert len(calls) == len(results)
    asked["messages"] += exchange(calls, *results)
    return await answer(asked)


def exchange(calls: list[Body], *results: str) -> list[Body]:
    functions = [{"name": call["name"], "arguments": call["arguments"]} for call in calls]
    wanted = [
        {"id": call["id"], "type": "function", "function": function}
        for call, function in zip(calls, functions, strict=True)
    ]
    answers = [
        {"role": "tool", "tool_call_id": call["id"], "content": result}
        for call, result in zip(calls, results, strict=True)
    ]
    return [{"role": "assistant", "content": None, "tool_calls": wanted}, *answers]


@pytest.mark.parametrize(
    ("text", "results", "said"),
    [
        ("read a.md", ["# Title\none\ntwo"], ["a.md", "3 line(s)", "# Title"]),
        ("read a.md", ['{"content": "x\\ny", "size": 3}'], ["2 line(s)", "x\ny"]),
        ("прочитай a.md", ["строка"], ["Прочитал a.md, строк: 1", "строка"]),
        ("compare a.py and b.py", ["1\n2\n3", "1\nx\n3\n4"], ["a.py has 3", "b.py has 4", "2 line(s)"]),
        ("сравни a.py и b.py", ["1\n2", "1\n2"], ["совпадают"]),
        ("compare a.py and b.py", ["1", "Error: File not found"], ["a.py, 1 line(s)", "b.py", "File not found"]),
        ("write hello.py", ["The user rejected this call: not now"], ["rejected", "hello.py", "not now"]),
        ("создай hello.py", ["The user rejected this call"], ["отклонили", "hello.py"]),
        ("write hello.py that prints hi", ["true"], ["hello.py is written, 6 line(s)"]),
        ("list files", ['["a", {"name": "b"}, {"path": "c"}]'], ["3 entries", "a\nb\nc"]),
        ("list files", ["[]"], ["0 entries"]),
        ("search TODO", ['{"matches": [{"file": "a.py", "line": 3}]}'], ["TODO", "a.py:3"]),
        ("run pytest", ['{"exit_code": 0, "stdout": "1\\n2\\n3\\n4\\n5\\n6"}'], ["6 line(s)", "2\n3\n4\n5\n6"]),
        ("run pytest", ["no result; it is not known whether it ran"], ["did not succeed"]),
        ("fix a.py", ["x = 1"], ["a.py", "A real model"]),
        ("создай папку docs", ["{}"], ["папка docs создана"]),
        ("read a.md", ["null"], ["a.md"]),
        ("read a.md", ["[" * 100_000], ["a.md"]),
    ],
)
async def test_results_are_summed_up_and_no_tool_is_called_again(text, results, said):
    got = await turn("coder", text, *results)
    assert got["calls"] == []
    assert [part for part in said if part not in got["text"]] == []


async def test_the_next_message_gets_tools_again_with_new_ids():
    asked = body("coder", user("compare a.py and b.py"))
    first = (await answer(asked))["calls"]
    asked["messages"] += [*exchange(first, "1", "2"), {"role": "assistant", "content": "ok"}, user("read c.py")]
    second = (await answer(asked))["calls"]
    assert [call["name"] for call in second] == ["read_file"]
    assert len({call["id"] for call in first + second}) == 3
    assert first[1]["id"] == "call_2_1"


async def test_after_a_switch_the_next_agent_does_the_work_and_switches_no_more():
    asked = body("ask", user("write hello.py"))
    handed = exchange((await answer(asked))["calls"], "Switched to coder")
    after = (await answer(body("coder", user("write hello.py"), *handed)))["calls"]
    assert [call["name"] for call in after] == ["write_file"]
    assert (await answer(body("ask", user("write hello.py"), *handed)))["calls"] == []


@pytest.mark.parametrize("phrase", ["исправь падение при логине", "как работает Provider", "спроектируй схему БД"])
async def test_routing_is_answered_with_the_keywords_verdict_and_confidence(phrase):
    got = await answer({"messages": routing.request(phrase, recent_agents=["coder"])})
    verdict = routing.parse(got["text"])
    assert (verdict.agent, verdict.confidence) == (routing.keywords(phrase).agent, "high")


async def test_routing_keeps_to_the_agent_that_was_active_last():
    got = await answer({"messages": routing.request("ок", recent_agents=["debug"])})
    assert routing.parse(got["text"]).agent == "debug"


@pytest.mark.parametrize("text", ["tell me a long story", "расскажи длинную историю", "ответь длинно"])
async def test_a_long_story_is_long_enough_to_cancel(text):
    assert 280 <= len((await answer(body("ask", user(text))))["text"].split()) <= 450


@pytest.mark.parametrize("agent", ["coder", "architect", "debug", "ask"])
@pytest.mark.parametrize("text", ["hi", "привет", "design a cache", "как это работает", "помоги с парсером"])
async def test_answers_in_words_are_short_and_in_the_language_of_the_question(agent, text):
    said = (await answer(body(agent, user(text))))["text"]
    assert 5 <= len(said.split()) <= 75
    assert demo_requests.language(said) == demo_requests.language(text)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "system", "content": "x"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": [{"type": "text", "text": "read a.py"}]}],
        [{"role": "user", "content": "x"}, {"role": "tool", "tool_call_id": "gone", "content": "{"}],
        [{"role": "user", "content": "read a.py {0} {topic} %s"}],
        [{"role": "user", "content": "how {x} works"}],
        [{"role": "user", "content": "a" * 100_000}],
        [{"role": "user", "content": "(" * 10_000 + "read a.b/" * 10_000}],
    ],
)
async def test_any_history_gets_a_valid_answer(messages):
    assert await answer({"messages": messages, "tools": body("coder")["tools"]})


async def test_the_same_request_gets_the_same_chunks():
    asked = body("coder", user("compare a.py and b.py"))
    assert [chunk async for chunk in demo_model.chunks(asked)] == [chunk async for chunk in demo_model.chunks(asked)]
