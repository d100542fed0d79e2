"""The form of an agent's draft: each part is as in the code until its box is ticked."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from agents_app import overrides, playground
from agents_app.agents import Agent
from agents_app.overrides import MAX_MODEL_CHARACTERS, Fitted
from sessions_app import agent_versions
from sessions_app.models import AgentVersion
from sessions_app.models.policy import lines_of

LABELS = {
    "prompt": gettext_lazy("Prompt"),
    "tools": gettext_lazy("Tools"),
    "file_rules": gettext_lazy("File rules"),
    "model": gettext_lazy("Model"),
    "temperature": gettext_lazy("Temperature"),
}
CODE = {"spellcheck": "false", "autocomplete": "off", "class": "mono"}


class DraftForm(forms.Form):
    """`overrides` is what the ticked boxes say, `fitted` the agent that comes of it, once the form is valid."""

    prompt = forms.CharField(required=False, strip=False, widget=forms.Textarea({"rows": 22, **CODE}))
    tools = forms.MultipleChoiceField(required=False)
    file_rules = forms.CharField(required=False, widget=forms.Textarea({"rows": 4, "wrap": "off", **CODE}))
    model = forms.CharField(required=False, max_length=MAX_MODEL_CHARACTERS, widget=forms.TextInput(CODE))
    temperature = forms.FloatField(
        required=False, widget=forms.NumberInput({"step": "0.05", "min": "0", "max": str(overrides.MAX_TEMPERATURE)})
    )
    note = forms.CharField(required=False, max_length=500)
    seen = forms.IntegerField(required=False, min_value=0, widget=forms.HiddenInput)

    def __init__(self, agent: Agent, version: AgentVersion | None, data: Any = None) -> None:
        self.agent = agent
        self.parts = overrides.open_parts(agent)
        self.overrides: dict[str, Any] = {}
        self.fitted = Fitted(agent)
        super().__init__(data, initial=_shown(agent, version))
        for part in LABELS.keys() - set(self.parts):
            del self.fields[part]
        for part in self.parts:
            self.fields[part].label = LABELS[part]
            self.fields[f"{part}_set"] = forms.BooleanField(required=False, label=_("Set here"))
        if "tools" in self.fields:
            self.fields["tools"].choices = [(tool.name, tool.name) for tool in overrides.choosable()]  # type: ignore[attr-defined]

    def clean(self) -> None:
        told = {}
        for part in self.parts:
            if self.cleaned_data.get(f"{part}_set") and part in self.cleaned_data:
                told[part] = _value(part, self.cleaned_data[part])
        self.overrides, self.fitted = told, overrides.fit(self.agent, told)
        for part, wrong in self.fitted.misfits.items():
            for why in wrong:
                self.add_error(part, why)


class TrialForm(DraftForm):
    message = forms.CharField(
        max_length=playground.MAX_MESSAGE_CHARACTERS, widget=forms.Textarea({"rows": 4}), label=gettext_lazy("Message")
    )


def _value(part: str, given: Any) -> Any:
    if part == "prompt":
        return given.replace("\r\n", "\n").replace("\r", "\n")
    return lines_of(given) if part == "file_rules" else given


def _shown(agent: Agent, version: AgentVersion | None) -> dict[str, Any]:
    """What applies, whether it is set here or comes from the code."""
    told = agent_versions.told(version)
    now = overrides.fit(agent, told).agent
    initial = {
        "prompt": now.prompt,
        "tools": overrides.chosen_tools(now),
        "file_rules": "\n".join(now.file_rules),
        "model": now.model,
        "temperature": now.temperature,
        "seen": version.number if version else 0,
    }
    return initial | {f"{part}_set": True for part in told if part in LABELS}
