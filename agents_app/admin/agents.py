"""The agents' pages: what an agent is told and may do, set over the code's definition, tried, compared, restored."""

from __future__ import annotations

from typing import Any

from asgiref.sync import async_to_sync
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.text import capfirst
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from agents_app import agents, definitions, playground
from agents_app.admin import agent_pages
from agents_app.admin.agent_forms import DraftForm, TrialForm
from agents_app.agents import Agent
from sessions_app import agent_versions, correlation
from sessions_app.admin.actions import operator, seen
from sessions_app.admin.stored import StoredRows
from sessions_app.agent_versions import ChangedMeanwhile
from sessions_app.models import AgentVersion

CHANGE, TRY = "sessions_app.change_agentversion", "sessions_app.try_agentversion"
OF_AGENT = "admin:sessions_app_agentversion_agent"


@admin.register(AgentVersion)
class AgentVersionAdmin(StoredRows):
    def get_urls(self) -> list[Any]:
        view, name = self.admin_site.admin_view, "sessions_app_agentversion"
        return [
            path("of/<slug:agent_type>/", view(self.agent), name=f"{name}_agent"),
            path("of/<slug:agent_type>/try/", view(require_POST(self.trial)), name=f"{name}_try"),
            path("of/<slug:agent_type>/reset/", view(require_POST(self.reset)), name=f"{name}_reset"),
            path("version/<int:number>/", view(self.version), name=f"{name}_version"),
            path("version/<int:number>/restore/", view(require_POST(self.restore)), name=f"{name}_restore"),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        self._may(request, self.has_view_permission(request))
        told = {"title": capfirst(str(self.opts.verbose_name_plural)), "agents": agent_pages.listed()}
        return self._page(request, "agents", told)

    def change_view(self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        """A version's row is its page."""
        version = self.get_object(request, object_id)
        if version is None:
            raise Http404
        return redirect("admin:sessions_app_agentversion_version", version.number)

    # --- one agent ---

    def agent(self, request: HttpRequest, agent_type: str) -> HttpResponse:
        """The form, what it is now, its versions; a POST makes the next one."""
        own = _own(agent_type)
        if request.method == "POST":
            return self._save(request, own)
        self._may(request, self.has_view_permission(request))
        return self._form(request, own, DraftForm(own, agent_versions.of(agent_type).first()))

    def _save(self, request: HttpRequest, own: Agent) -> HttpResponse:
        self._may(request, request.user.has_perm(CHANGE))
        data = request.POST.copy()
        form = DraftForm(own, agent_versions.of(own.type).first(), data)
        if not form.is_valid():
            return self._form(request, own, form)
        told = form.cleaned_data
        try:
            return self._set(request, own.type, form.overrides, note=told["note"], seen=told["seen"] or 0)
        except ChangedMeanwhile as error:
            why = _("Somebody else has saved version {number} meanwhile. Look at it; saving again replaces it.")
            form.add_error(None, why.format(number=error.newest))
            data["seen"] = str(error.newest)
            return self._form(request, own, form)

    def reset(self, request: HttpRequest, agent_type: str) -> HttpResponse:
        """Back to the code's definition, as a version."""
        self._may(request, request.user.has_perm(CHANGE))
        own = _own(agent_type)
        try:
            return self._set(request, own.type, {}, note="As in the code", seen=seen(request))
        except ChangedMeanwhile as error:
            return self._look_again(request, own, error)

    def _set(
        self, request: HttpRequest, agent_type: str, told: dict[str, Any], *, note: str, seen: int
    ) -> HttpResponse:
        made = agent_versions.save(agent_type, told, who=operator(request), note=note, seen=seen)
        self._told(request, made)
        return redirect(OF_AGENT, agent_type)

    def _told(self, request: HttpRequest, made: AgentVersion | None) -> None:
        if made is None:
            self.message_user(request, _("Nothing has changed."), messages.INFO)
            return
        definitions.refresh()
        self.log_change(request, made, "Saved")
        told = _("Version {number} applies now, in every process within two seconds.").format(number=made.number)
        self.message_user(request, told, messages.SUCCESS)

    def trial(self, request: HttpRequest, agent_type: str) -> HttpResponseBase:
        """Runs a message against what the form says; the page's script gets the result alone, and line by line."""
        self._may(request, self.has_view_permission(request) and request.user.has_perm(TRY))
        own = _own(agent_type)
        form = TrialForm(own, agent_versions.of(agent_type).first(), request.POST)
        by_script = request.headers.get("accept") == agent_pages.LINES
        if not form.is_valid():
            wrong = {"wrong": agent_pages.wrong(form)}
            return self._page(request, "agent_result", wrong) if by_script else self._form(request, own, form)
        draft, message, who = form.fitted.agent, form.cleaned_data["message"], operator(request)
        if by_script:
            heard = playground.heard(draft, message, who=who, correlation_id=correlation.current())
            lines = agent_pages.lines(heard, get_language() or "en")
            return StreamingHttpResponse(lines, content_type=agent_pages.LINES, headers={"X-Accel-Buffering": "no"})
        outcome = async_to_sync(playground.run)(draft, message, who=who, correlation_id=correlation.current())
        return self._form(request, own, form, {"result": agent_pages.result(outcome)})

    def _form(
        self, request: HttpRequest, own: Agent, form: DraftForm, more: dict[str, Any] | None = None
    ) -> HttpResponse:
        told = agent_pages.of(own, form) | {
            "message": form.data.get("message", "") if form.is_bound else "",
            "may_change": request.user.has_perm(CHANGE),
            "may_try": request.user.has_perm(TRY),
        }
        return self._page(request, "agent", told | (more or {}))

    # --- one version ---

    def version(self, request: HttpRequest, number: int) -> HttpResponse:
        self._may(request, self.has_view_permission(request))
        told = agent_pages.version(get_object_or_404(AgentVersion, number=number), request.GET.get("with", ""))
        return self._page(request, "agent_version", told | {"may_change": request.user.has_perm(CHANGE)})

    def restore(self, request: HttpRequest, number: int) -> HttpResponse:
        """Makes the agent what it was in this version; that is a new version."""
        self._may(request, request.user.has_perm(CHANGE))
        version = get_object_or_404(AgentVersion, number=number)
        own = _own(version.agent)
        try:
            self._told(request, agent_versions.restore(own.type, number, who=operator(request), seen=seen(request)))
        except ChangedMeanwhile as error:
            return self._look_again(request, own, error)
        return redirect(OF_AGENT, own.type)

    # --- what they share ---

    def _look_again(self, request: HttpRequest, own: Agent, error: ChangedMeanwhile) -> HttpResponse:
        told = _("Somebody else has saved version {number} meanwhile; nothing was changed. Look at it first.")
        self.message_user(request, told.format(number=error.newest), messages.ERROR)
        return redirect(OF_AGENT, own.type)

    def _may(self, request: HttpRequest, allowed: bool) -> None:
        if not allowed:
            raise PermissionDenied

    def _page(self, request: HttpRequest, template: str, told: dict[str, Any]) -> HttpResponse:
        context = {**self.admin_site.each_context(request), "opts": self.opts, **told}
        return TemplateResponse(request, f"admin/agents_app/{template}.html", context)


def _own(agent_type: str) -> Agent:
    try:
        return agents.defined(agent_type)
    except KeyError:
        raise Http404(_("There is no such agent in the code.")) from None
