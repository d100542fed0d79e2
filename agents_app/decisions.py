"""`POST /api/v1/approvals/bulk`: one decision about many calls, each taken as a client's own would be."""

from __future__ import annotations

from typing import Any

from asgiref.sync import async_to_sync
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agents_app import actions
from agents_app.actions import Caller
from agents_app.messages import HitlDecision
from agents_app.supervisor import supervisor
from sessions_app import api
from sessions_app.errors import Draining
from sessions_app.serializers.inbound import SessionId, Text

MAX_CALLS = 100
MAX_ID_CHARACTERS = 255


class CallToDecide(serializers.Serializer[Any]):
    session_id = SessionId()
    call_id = Text(allow_blank=False, max_length=MAX_ID_CHARACTERS)
    arguments_hash = Text(required=False, allow_null=True, max_length=64, help_text="Of the arguments that were seen.")


class BulkDecision(serializers.Serializer[Any]):
    decision = serializers.ChoiceField(["approve", "reject"])
    call_ids = serializers.ListField(child=CallToDecide(), allow_empty=False, max_length=MAX_CALLS)
    feedback = Text(required=False, allow_null=True, help_text="What the model reads of a rejection.")


class CallDecided(serializers.Serializer[Any]):
    session_id = serializers.CharField()
    call_id = serializers.CharField()
    ok = serializers.BooleanField()
    state = serializers.CharField(required=False, help_text="approved or rejected.")
    code = serializers.CharField(required=False, help_text="Why not; as in an error chunk.")
    detail = serializers.CharField(required=False)
    metadata = serializers.DictField(required=False, help_text="Who was faster: outcome, decided_by, decided_at.")


class BulkDecided(serializers.Serializer[Any]):
    results = CallDecided(many=True, help_text="In the order of call_ids.")
    decided = serializers.IntegerField()
    refused = serializers.IntegerField()


@api.described(
    bulk=extend_schema(
        summary="Approve or reject many calls; each is answered by itself", request=BulkDecision, responses=BulkDecided
    ),
)
class DecisionViewSet(api.RESTViewSet):
    pagination_class = None
    filter_backends = ()

    def bulk(self, request: Request) -> Response:
        wanted = api.checked(BulkDecision, request.data)
        if supervisor.draining:
            raise Draining()
        caller = Caller(api.who(request), api.correlation_id(request))
        results = async_to_sync(_decide_all)(wanted, caller)
        decided = sum(one["ok"] for one in results)
        return Response({"results": results, "decided": decided, "refused": len(results) - decided})


async def _decide_all(wanted: dict[str, Any], caller: Caller) -> list[dict[str, Any]]:
    """One after the other, in the loop that runs the turns: what a rejection takes on is this process's work."""
    return [await _decide(call, wanted, caller) for call in wanted["call_ids"]]


async def _decide(call: dict[str, Any], wanted: dict[str, Any], caller: Caller) -> dict[str, Any]:
    message = HitlDecision(
        type="hitl_decision",
        call_id=call["call_id"],
        decision=wanted["decision"],
        feedback=wanted.get("feedback"),
        arguments_hash=call.get("arguments_hash"),
    )
    named = {"session_id": call["session_id"], "call_id": call["call_id"]}
    told = await actions.take(call["session_id"], message, {}, caller)
    if told.fault is not None:
        return {**named, "ok": False, **told.fault.body()}
    return {**named, "ok": True, "state": "approved" if wanted["decision"] == "approve" else "rejected"}
