from django.apps import AppConfig


class ToldConfig(AppConfig):
    name = "tests.told"

    def ready(self) -> None:
        from tests.told import handlers  # noqa: F401  registers them
