"""Who listens where: the streams are consumers, all else is Django, and the gate stands before both."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "runtime_project.settings")

import django

django.setup(set_prefix=False)

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402  after the apps are loaded
from django.urls import re_path  # noqa: E402

from agents_app.consumers import MessageStream, RetryStream, RunRetryStream, SessionStream  # noqa: E402
from agents_app.sockets import NoSuchPath, SessionSocket  # noqa: E402
from runtime_project.gate import STREAM_PATHS, Gate  # noqa: E402
from runtime_project.origin import Scope  # noqa: E402
from runtime_project.sentinel import Receive, Send  # noqa: E402
from runtime_project.slashes import Handler, routed  # noqa: E402

V1 = r"^(?:api/v1/)?"
SESSION = r"sessions/(?P<session_id>.+)"

streams = URLRouter(
    [
        re_path(V1 + SESSION + r"/stream$", SessionStream.as_asgi()),
        re_path(V1 + SESSION + r"/retry$", RetryStream.as_asgi()),
        re_path(r"^api/v1/runs/(?P<run_id>[0-9]{1,18})/retry$", RunRetryStream.as_asgi()),
        # Channels routes to any ASGI application.
        re_path(r"", Handler()),  # type: ignore[arg-type]
    ]
)


message_stream = MessageStream.as_asgi()


async def http(scope: Scope, receive: Receive, send: Send) -> None:
    path = routed(scope).removeprefix(scope.get("root_path", ""))
    if path in STREAM_PATHS:  # nearly all requests: no route need be looked for
        await message_stream(scope, receive, send)
    else:
        await streams({**scope, "path_remaining": path}, receive, send)


websocket = URLRouter(
    [
        re_path(r"^ws/(?P<session_id>(?s:.+))$", SessionSocket.as_asgi()),
        re_path(r"", NoSuchPath.as_asgi()),
    ]
)
application = Gate(ProtocolTypeRouter({"http": http, "websocket": websocket}))
