"""The locks install with every pip, also after a newer version of a locked package has come out.

Before pip 23.3 the pin of `name` does not count for a dependent's `name[extra]`: the newest version is taken, and
refused for want of a hash. A lock that names the same extras is safe.
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PIN = re.compile(r"^([a-z0-9-]+)(?:\[([^]]*)\])?==", re.MULTILINE)


def locked(name: str) -> dict[str, set[str]]:
    """The extras of each package in a lock."""
    found = PIN.findall((ROOT / name).read_text())
    return {package: {extra.strip() for extra in extras.split(",") if extra.strip()} for package, extras in found}


def wanted(lock: dict[str, set[str]]) -> dict[str, set[str]]:
    """The extras that locked packages, as they are installed here, ask of others."""
    found: dict[str, set[str]] = {}
    for package, extras in lock.items():
        try:
            requirements = [Requirement(text) for text in metadata.requires(package) or ()]
        except metadata.PackageNotFoundError:  # another system's
            continue
        for one in requirements:
            marker = one.marker
            if one.extras and (marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras})):
                found.setdefault(canonicalize_name(one.name), set()).update(one.extras)
    return found


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_the_lock_names_the_extras_that_dependents_name(name: str) -> None:
    lock = locked(name)
    asked = wanted(lock)
    assert asked["twisted"] == {"tls"}  # daphne's: what is looked for is found
    assert {package: lock.get(package) for package in asked} == asked
