"""The project's settings with the handlers of the tests."""

from runtime_project.settings import *  # noqa: F403
from runtime_project.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.told"]
