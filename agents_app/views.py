"""The agents there are, and the one a session has."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agents_app import agents, definitions, tools
from sessions_app import api, queries, services
from sessions_app.errors import AgentSwitchRefused
from sessions_app.serializers.inbound import Text
from sessions_app.serializers.sessions import AgentContext
from sessions_app.views import SESSION_ID


class ContextQuery(serializers.Serializer[Any]):
    include_history = serializers.BooleanField(default=False)


class SwitchRequest(serializers.Serializer[Any]):
    target_agent = Text()
    reason = Text()
    confidence = Text(required=False, allow_null=True, max_length=32)


class AgentItem(serializers.Serializer[agents.Agent]):
    type = serializers.CharField()
    name = serializers.CharField()
    description = serializers.CharField()
    allowed_tools = serializers.SerializerMethodField()
    has_file_restrictions = serializers.SerializerMethodField()

    def get_allowed_tools(self, agent: agents.Agent) -> list[str]:
        return [tool.name for tool in tools.offered(agent)]

    def get_has_file_restrictions(self, agent: agents.Agent) -> bool:
        return bool(agent.file_rules)


class AgentList(serializers.Serializer[Any]):
    agents = AgentItem(many=True)
    total = serializers.IntegerField()


@api.described(
    agents=extend_schema(summary="The agents that may be switched to", responses=AgentList),
    current=extend_schema(
        summary="A session's agent and how it came to it",
        parameters=[SESSION_ID, ContextQuery],
        responses=AgentContext,
    ),
    switch=extend_schema(
        summary="Give a session to another agent; open tool calls stay open",
        parameters=[SESSION_ID],
        request=SwitchRequest,
        responses=AgentContext,
    ),
)
class AgentViewSet(api.RESTViewSet):
    pagination_class = None
    filter_backends = ()

    def agents(self, request: Request) -> Response:
        definitions.refresh()
        available = agents.available()
        return Response(AgentList({"agents": available, "total": len(available)}).data)

    def current(self, request: Request, session_id: str) -> Response:
        return Response(AgentContext(queries.agent_context(session_id, **api.asked(ContextQuery, request))).data)

    def switch(self, request: Request, session_id: str) -> Response:
        wanted = api.checked(SwitchRequest, request.data)
        queries.session(session_id)
        services.switch_agent(
            session_id,
            known_agent(wanted["target_agent"]),
            reason=wanted["reason"],
            confidence=wanted.get("confidence") or "",
            correlation_id=api.correlation_id(request),
            who=api.who(request),
        )
        return Response(AgentContext(queries.agent_context(session_id, include_history=True)).data)


def known_agent(name: str) -> str:
    """The agent that `name` stands for; raises AgentSwitchRefused when there is none here."""
    known = agents.resolve(name)
    if known is None:
        raise AgentSwitchRefused(agent=name, why="there is no such agent here")
    return known
