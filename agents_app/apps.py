from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class AgentsAppConfig(AppConfig):
    name = "agents_app"
    verbose_name = _("Agents")

    def ready(self) -> None:
        from agents_app import checks, handlers, jobs, live, tools  # noqa: F401  register checks and handlers, listen
        from sessions_app import tallies

        tallies.know_tools(tool.name for tool in tools.all_tools())
