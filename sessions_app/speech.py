"""In which language a person is told that something went wrong. Imports errors and conf only."""

from __future__ import annotations

from django.utils.translation import override

from sessions_app.conf import settings
from sessions_app.errors import RuntimeFault


def language_of(sample: str) -> str:
    """The configured language, else Russian for a text with more Cyrillic than Latin letters, else English."""
    if settings.LANGUAGE:
        return str(settings.LANGUAGE)
    cyrillic = sum("Ѐ" <= letter <= "ӿ" for letter in sample)
    latin = sum(letter.isascii() and letter.isalpha() for letter in sample)
    return "ru" if cyrillic > latin else "en"


def say(fault: RuntimeFault, sample: str) -> str:
    """The fault's text for the person who wrote `sample`."""
    with override(language_of(sample)):
        return fault.text()
