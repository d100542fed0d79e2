"""Each writes a line of what it was given into the file that TOLD names."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from agents_app.handlers import NotDelivered, handles
from sessions_app.deliveries import RetryPolicy
from sessions_app.models import Event
from tests.told import noted

BRISK = RetryPolicy(max_attempts=3, first_seconds=0.05)
TOLD = Path(os.environ["TOLD"])


def note(handler: str, event: Event) -> int:
    """Writes it down; returns how often this handler was given this event by now."""
    told = {"handler": handler, "event": str(event.event_id), "seq": event.seq, "correlation": event.correlation_id}
    with TOLD.open("a") as file:
        file.write(json.dumps({**told, "process": os.getpid()}) + "\n")
    return sum((line["handler"], line["event"]) == (handler, told["event"]) for line in noted(TOLD))


@handles("SessionCreated")
async def takes(event: Event) -> None:
    note("takes", event)


@handles("SessionCreated", retries=BRISK)
def stumbles(event: Event) -> None:
    if note("stumbles", event) < 3:
        raise NotDelivered("not yet")


@handles("SessionCreated", retries=BRISK)
async def refuses(event: Event) -> None:
    note("refuses", event)
    raise NotDelivered("HTTP 503")


@handles("SessionCreated", retries=RetryPolicy(max_attempts=1), timeout_seconds=0.2)
def hangs(event: Event) -> None:
    note("hangs", event)
    time.sleep(5)


@handles("*", in_order=True, retries=BRISK)
def in_order(event: Event) -> None:
    if note("in_order", event) == 1 and event.type == "AgentSwitchRequested":
        raise NotDelivered("not yet")


@handles("AgentSwitched", timeout_seconds=5, retries=BRISK)
def dies(event: Event) -> None:
    if event.data["to_agent"] == "debug" and note("dies", event) == 1:
        os._exit(9)
