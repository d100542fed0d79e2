"""What an operator's browser holds open ends with the right to it: logged out, deactivated, with a permission less."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session as Login
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from sessions_app import services
from tests import listening
from tests.conftest import RunningServer
from tests.flows.test_gate import login

RIGHTS = ("view_session", "change_session", "change_approval")


def logged_out(user: User) -> None:
    Login.objects.all().delete()


def deactivated(user: User) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)


def no_staff(user: User) -> None:
    User.objects.filter(pk=user.pk).update(is_staff=False)


def no_view(user: User) -> None:
    user.user_permissions.remove(*Permission.objects.filter(codename="view_session"))


def no_decisions(user: User) -> None:
    user.user_permissions.remove(Permission.objects.get(codename="change_approval"))


def another_password(user: User) -> None:
    user.set_password("another password")
    user.save()


def deleted(user: User) -> None:
    user.delete()


LOSSES = [logged_out, deactivated, no_staff, no_view, no_decisions, another_password, deleted]


def socket_of(server: RunningServer, cookie: dict[str, str]) -> ClientConnection:
    headers = cookie | {"Origin": server.url}
    return connect(f"{server.websocket_url}/ws/s", additional_headers=headers, proxy=None)


@pytest.mark.parametrize("lose", LOSSES, ids=lambda lose: lose.__name__)
def test_the_socket_is_closed_and_the_stream_ends(
    server: RunningServer, client: httpx.Client, lose: Callable[[User], None]
) -> None:
    services.create_session("s")
    cookie = login(may=RIGHTS, is_staff=True)
    browser = httpx.Client(base_url=server.url, headers=cookie, timeout=30)
    with (
        browser,
        socket_of(server, cookie) as socket,
        listening.following(browser, "s") as ending,
        listening.following(client, "s") as staying,
    ):
        ending.begun()
        staying.begun()
        lose(User.objects.get())
        ending.ended(30)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401
        assert (ending.status, staying.over) == (200, False)


def test_what_an_account_gains_or_keeps_ends_nothing(server: RunningServer) -> None:
    services.create_session("s")
    cookie = login(may=["view_session"], is_staff=True)
    user = User.objects.get()
    with socket_of(server, cookie) as socket:
        user.user_permissions.set(Permission.objects.filter(codename__in=RIGHTS))
        User.objects.filter(pk=user.pk).update(first_name="Olga")
        with pytest.raises(TimeoutError):
            socket.recv(4)
        deactivated(user)
        with pytest.raises(ConnectionClosed):
            socket.recv(30)
