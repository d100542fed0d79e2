from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class SessionsAppConfig(AppConfig):
    name = "sessions_app"
    verbose_name = _("Sessions")

    def ready(self) -> None:
        from sessions_app.legacy import recognised

        if recognised.is_legacy_file():  # before anything opens it: that alone would change its journal mode
            raise SystemExit(recognised.REFUSAL)
