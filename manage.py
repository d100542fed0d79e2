#!/usr/bin/env python
"""Runs administrative commands: `serve`, `chat`, `test` and Django's own."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "runtime_project.settings")
    try:
        from django.core.exceptions import ImproperlyConfigured
        from django.core.management import execute_from_command_line
    except ImportError as missing:
        raise SystemExit("Django is not installed here: run `pip install -r requirements.txt` first.") from missing
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as wrong:
        raise SystemExit(f"The settings are wrong: {wrong}") from None


if __name__ == "__main__":
    main()
