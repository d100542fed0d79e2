"""What differs between two versions of the rules, as people would say it. Imports nothing of ours.

Versions keep rules without an identity, so a rule that was edited is known again by what it still has in common.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any, Literal

Rule = Mapping[str, Any]
PLACE = "order"
# A rule about another tool is another rule; one that has kept at least so many of its other fields is the same one.
LIKENESS = 8
MAX_COMPARED = 40_000


@dataclass(frozen=True, slots=True)
class Difference:
    """One rule that differs: `fields` names what changed in it, with the old and the new value."""

    kind: Literal["added", "removed", "changed", "moved"]
    rule: Rule
    place: int
    was_place: int | None = None
    fields: list[tuple[str, Any, Any]] = field(default_factory=list)


def compare(old: list[Any], new: list[Any]) -> list[Difference]:
    """The differences in the order of the new rules, those that went at the end; `place` counts from 1."""
    pairs = _pairs(old, new)
    moved = _moved(pairs)
    found = [_difference(old, new, pairs.get(at), at, at in moved) for at in range(len(new))]
    gone = [Difference("removed", old[at], at + 1) for at in range(len(old)) if at not in pairs.values()]
    return [*(one for one in found if one), *gone]


def _difference(old: list[Any], new: list[Any], was: int | None, at: int, moved: bool) -> Difference | None:
    if was is None:
        return Difference("added", new[at], at + 1)
    fields = [(name, old[was].get(name), value) for name, value in _told(new[at]) if old[was].get(name) != value]
    if not fields and not moved:
        return None
    return Difference("changed" if fields else "moved", new[at], at + 1, was + 1 if moved else None, fields)


def _told(rule: Rule) -> Iterator[tuple[str, Any]]:
    """All but the number: it says where a rule stands, and that is seen."""
    return ((name, value) for name, value in rule.items() if name != PLACE)


def _pairs(old: list[Any], new: list[Any]) -> dict[int, int]:
    """Places of new rules -> the places that they had: first equal ones, then those that are most alike."""
    places: dict[str, list[int]] = {}
    for was in range(len(old) - 1, -1, -1):
        places.setdefault(_written(old[was]), []).append(was)
    same = {at: known.pop() for at in range(len(new)) if (known := places.get(_written(new[at])))}
    return same | _alike(old, new, sorted({*range(len(old))} - {*same.values()}), sorted({*range(len(new))} - {*same}))


def _alike(old: list[Any], new: list[Any], left: list[int], right: list[int]) -> dict[int, int]:
    if len(left) * len(right) > MAX_COMPARED:
        return {}
    scores = [(_likeness(old[was], new[at]), -abs(was - at), at, was) for at in right for was in left]
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for likeness, _near, at, was in sorted(scores, reverse=True):
        if likeness >= LIKENESS and at not in pairs and was not in taken:
            pairs[at] = was
            taken.add(was)
    return pairs


def _written(rule: Rule) -> str:
    return json.dumps(dict(_told(rule)), sort_keys=True)


def _likeness(old: Rule, new: Rule) -> int:
    if old.get("pattern") != new.get("pattern"):
        return 0
    return sum(old.get(name) == value for name, value in _told(new))


def _moved(pairs: dict[int, int]) -> set[int]:
    """Those rules that stand in another order among the rules which both versions have; as few as explain it."""
    kept = sorted(pairs)
    before, after = sorted(pairs.values()), [pairs[at] for at in kept]
    still = {
        block.b + step
        for block in SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks()
        for step in range(block.size)
    }
    return {at for place, at in enumerate(kept) if place not in still}
