"""What spans are called and what stands in them: OpenTelemetry's conventions for generative AI, as of version 1.41.

All of these names are still in development there, so they are pinned here, in one place, and taken from no package.
No prompt, answer, argument or result is among them.
"""

from __future__ import annotations

from typing import Any

from agents_app.llm_types import Answer

OPERATION = "gen_ai.operation.name"
CHAT, EXECUTE_TOOL, INVOKE_AGENT = "chat", "execute_tool", "invoke_agent"
PROVIDER = "gen_ai.provider.name"
CONVERSATION = "gen_ai.conversation.id"
AGENT = "gen_ai.agent.name"
REQUEST_MODEL, RESPONSE_MODEL = "gen_ai.request.model", "gen_ai.response.model"
STREAMED = "gen_ai.request.stream"
FINISH_REASONS = "gen_ai.response.finish_reasons"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"  # seconds
INPUT_TOKENS, OUTPUT_TOKENS = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
TOOL, TOOL_CALL_ID = "gen_ai.tool.name", "gen_ai.tool.call.id"
ERROR_TYPE = "error.type"
DB_SYSTEM, DB_OPERATION = "db.system.name", "db.operation.name"
# Ours, where the conventions have no name.
RUN, ATTEMPT, CORRELATION = "agent_runtime.run.id", "agent_runtime.run.attempt", "agent_runtime.correlation.id"
OUTCOME, DECISION = "agent_runtime.outcome", "agent_runtime.approval.decision"

Attributes = dict[str, Any]


def chat(model: str, agent: str, *, streamed: bool) -> tuple[str, Attributes]:
    """The name and the attributes of a request to the model; any endpoint that speaks OpenAI's protocol is `openai`."""
    told = {OPERATION: CHAT, PROVIDER: "openai", REQUEST_MODEL: model, AGENT: agent, STREAMED: streamed}
    return f"{CHAT} {model}", told


def answered(answer: Answer, first_token_ms: int | None) -> Attributes:
    told = {
        RESPONSE_MODEL: answer.model or None,
        FINISH_REASONS: (answer.finish_reason,) if answer.finish_reason else None,
        INPUT_TOKENS: answer.usage.prompt_tokens,
        OUTPUT_TOKENS: answer.usage.completion_tokens,
        FIRST_CHUNK: first_token_ms / 1000 if first_token_ms is not None else None,
    }
    return {name: value for name, value in told.items() if value is not None}


def tool(name: str, call_id: str, outcome: str) -> tuple[str, Attributes]:
    return f"{EXECUTE_TOOL} {name}", {OPERATION: EXECUTE_TOOL, TOOL: name, TOOL_CALL_ID: call_id, OUTCOME: outcome}
