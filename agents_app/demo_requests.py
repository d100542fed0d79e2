"""What a message to the demo model asks for: language, files, wish. Rules, no model; imports nothing of ours."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Language = Literal["ru", "en"]

MAX_CHARACTERS = 4_000
MAX_TOKEN_CHARACTERS = 200

_BARE_FILES = {"readme": "README.md", "changelog": "CHANGELOG.md"}
_EXTENSIONLESS = frozenset(
    {"dockerfile", "makefile", "license", ".env", ".gitignore", ".dockerignore", ".editorconfig"}
)
_NOT_FILES = frozenset(
    {"e.g", "i.e", "т.е", "т.к", "т.д", "т.п", "node.js", "vue.js", "next.js", "react.js", "asp.net"}
)
_PATH = re.compile(r"[\w~@][\w.@~+-]*(?:/[\w.@~+-]+)*\.[A-Za-z][A-Za-z0-9]{0,9}")
_QUOTED = re.compile(
    r"\"([^\"\n]{1,120})\"|`([^`\n]{1,120})`|«([^»\n]{1,120})»|“([^”\n]{1,120})”|(?<!\w)'([^'\n]{1,120})'(?!\w)"
)

MAX_WISH_CHARACTERS = 300

# Matched at the start of a word in lower-cased text with `@` for each file; the one that stands first is the wish.
_WISHES: tuple[tuple[str, str], ...] = (
    (
        "story",
        r"(?:tell me )?a? ?(?:very )?long (?:story|answer|text|tale)|tell me a story|расскажи (?:историю|"
        r"сказку)",
    ),
    ("story", r"(?:очень )?длинн\w* (?:истори|ответ|текст|рассказ|сказк)|длинно\b"),
    ("compare", r"compare\b|diff\b|сравни|difference between @|(?:чем )?отлича\w+ @|разница между @"),
    (
        "mkdir",
        r"(?:create|make|add) (?:a |the |new )*(?:folder|directory)|mkdir\b|созда\w+ (?:папку|каталог|директорию)",
    ),
    (
        "list",
        r"list (?:all |the |my )*(?:files|directory|folder)|ls\b|(?:show|which|what) (?:\w+ )?files|"
        r"какие (?:тут |здесь |есть )?файлы",
    ),
    (
        "list",
        r"(?:покажи|выведи|перечисли|список) (?:все |мне )*(?:файл|содержимое папки)",
    ),
    ("write", r"add (?:an? |new |empty )*(?:@ )?file\b|добав\w+ (?:новый |пустой )?файл"),
    ("edit", r"(?:add|update|fix|edit|refactor|rename|change|improve|rewrite|remove)\b"),
    ("edit", r"(?:добав|обнов|исправ|почин|поправ|отрефактор|переимен|измен|улучш|перепиш|удал|убер)"),
    ("write", r"(?:write|create|make|save|generate|draft)\b|(?:напиш|созда[йт]|сдела|запиш|сохран|сгенер|набросай)"),
    ("read", r"(?:read|open|show|cat|view|summari[sz]e|look at|what(?:'s| is) in)\b"),
    ("read", r"(?:прочит|прочти|открой|покаж|глянь|посмотр|перескаж|выведи|что (?:в|внутри|лежит в)\b)"),
    ("search", r"(?:search|grep|find|look for)\b|(?:найди|поищи|ищи|отыщи)|where (?:is|are|do|does)\b|где\b"),
    ("run", r"(?:run|execute|launch)\b|(?:запусти|выполни|прогони)"),
    (
        "design",
        r"(?:design|plan|architect|roadmap|outline|propose)|(?:спроектир|спланир|план\b|архитектур|"
        r"продума|предлож|распиш)",
    ),
    (
        "greeting",
        r"(?:hi|hello|hey)\b|help[!?. ]*$|who are you|what can you do|(?:привет|здравств|добр(?:ый|ое)|"
        r"помощь[!?. ]*$|"
        r"что ты умеешь|кто ты)",
    ),
)
_RULES = tuple((wish, re.compile(rf"(?:^|(?<=\s))(?:{pattern})")) for wish, pattern in _WISHES)
_PARTICULAR = ("story", "compare", "mkdir", "list")
_ORDER = list(dict.fromkeys(wish for wish, _ in _WISHES))
_ABOUT_A_FILE = re.compile(r"\b(?:for|of|about|для|про|по|к) @")
_FAULT = re.compile(r"\bbug|\bcause|\berror|\bleak|\bбаг|\bпричин|\bошибк|\bутечк")
_SAYS_FILE = re.compile(r"\bfile|\bread|\bopen|\bфайл|\bпрочит|\bпрочти|\bоткр")
_SEARCH_WORDS = re.compile(
    r"\b(?:search(?: the (?:code|project))?(?: for)?|grep|find|look for|where (?:is|are|do we use|does)|"
    r"найди|поищи|ищи|отыщи|(?:где|where)(?: используется| объявлен\w?| определ\w+| находится| лежит|"
    r" вызывается)?)\s+",
    re.IGNORECASE,
)
_COMMAND_WORDS = re.compile(
    r"\b(?:run|execute|launch|запусти|выполни|прогони)\s+(?:the\s+|command\s+|команду\s+)*", re.IGNORECASE
)
_PRINTED_WORDS = re.compile(
    r"\b(?:that |which |котор\w{2,3} )?(?:prints?|outputs?|says?|logs?|печата\w+|выводит\w*|пишет)\s+", re.IGNORECASE
)
_TESTS = re.compile(r"^(?:all |unit |все |юнит.?)*(?:tests?|тест\w*)\b[.!]*$", re.IGNORECASE)
_SMALL_WORD = re.compile(
    r"(?:the|an?|all|in|code|for|of|is|are|used|defined|declared|все|всё|в|коде|слово|строку|класс|"
    r"функцию|метод)[\W_]*",
    re.IGNORECASE,
)
# Names without an ending: after the word "file", or the letters that stand for files when two are compared.
_NAMED_FILE = re.compile(r"\b(?:file|файл)\s+(?:named\s+|called\s+)?([a-z][\w-]{0,60})(?=[\s.,!?]|$)", re.IGNORECASE)
_NAMED_PAIR = re.compile(
    r"\b(?:compare|diff|сравни(?:те)?)\s+(?:(files?|файлы)\s+)?([a-z][\w-]{0,60})\s*(?:and|with|vs|и|"
    r"с|,)\s*([a-z][\w-]{0,60})\b",
    re.IGNORECASE,
)
_AFTER_FILE = frozenset(["and", "that", "which", "with", "please", "pls", "in", "for", "to", "from", "again", "now"])


@dataclass(frozen=True, slots=True)
class Request:
    """One message of a person, understood."""

    text: str
    language: Language
    wish: str
    paths: tuple[str, ...]


def understand(text: str) -> Request:
    text = text[:MAX_CHARACTERS].strip()
    found = _paths(text)
    return Request(text, language(text), _wish(_outline(text), found), found)


def _outline(text: str) -> str:
    """The beginning of the text as the rules see it: a file is `@`, so that `hello.py` is no greeting."""
    words = ("@" if _path_in(word) else word.lower() for word in text[:MAX_WISH_CHARACTERS].split())
    return " ".join(words).replace("ё", "е")


def language(text: str) -> Language:
    """Russian when most of the letters are Cyrillic; file names and code count as letters too."""
    cyrillic = sum("а" <= letter <= "я" or letter == "ё" for letter in text.lower())
    latin = sum("a" <= letter <= "z" for letter in text.lower())
    return "ru" if cyrillic > latin or (cyrillic and _speaks_russian(text)) else "en"


def _speaks_russian(text: str) -> bool:
    """A short Russian order about long file names is still Russian."""
    words = [word for word in text.split() if not _path_in(word)]
    return 2 * sum(any("а" <= letter <= "я" for letter in word.lower()) for word in words) > len(words)


def _wish(outline: str, paths: tuple[str, ...]) -> str:
    found = {wish: match.start() for wish, rule in reversed(_RULES) if (match := rule.search(outline))}
    particular = next((wish for wish in _PARTICULAR if wish in found), None)
    wish = particular or min(found, key=lambda name: (found[name], _ORDER.index(name)), default="talk")
    if wish == "compare" and len(paths) < 2:
        return "talk"
    if wish == "write" and _ABOUT_A_FILE.search(outline):
        return "edit"
    if wish == "search" and (paths or _FAULT.search(outline)):
        return "look" if paths else "talk"
    if wish == "read" and not paths and not _SAYS_FILE.search(outline):
        return "talk"
    return "look" if wish == "talk" and paths else wish


def _paths(text: str) -> tuple[str, ...]:
    """File names in the order they are named, once each."""
    found = [path for word in text.split() if (path := _path_in(word))]
    return tuple(dict.fromkeys(found or _bare_names(text)))


def _bare_names(text: str) -> list[str]:
    if (pair := _NAMED_PAIR.search(text)) and (pair[1] or len(pair[2]) == len(pair[3]) == 1):
        return [pair[2], pair[3]]
    named = _NAMED_FILE.search(text)
    return [named[1]] if named and named[1].lower() not in _AFTER_FILE else []


def _path_in(word: str) -> str | None:
    bare = word[:MAX_TOKEN_CHARACTERS].strip("\"'`«»“”()[]{}<>,;:!?*")
    bare = bare.rstrip(".")
    lowered = bare.lower()
    if "://" in bare or lowered in _NOT_FILES:
        return None
    if lowered.rsplit("/", 1)[-1] in _EXTENSIONLESS:
        return bare
    if lowered in _BARE_FILES:
        return _BARE_FILES[lowered]
    return bare if _PATH.fullmatch(bare.removeprefix("./").removeprefix("/").lstrip(".")) else None


def printed(text: str) -> str | None:
    """What a program is asked to print: `hello.py that prints hi` gives `hi`."""
    found = _PRINTED_WORDS.search(text)
    if found is None:
        return None
    rest = text[found.end() :].split("\n")[0].strip()
    return _inside(_QUOTED.match(rest)) or rest[:80].rstrip(".!? ") or None


def _inside(quoted: re.Match[str] | None) -> str | None:
    return next((text.strip() for text in quoted.groups() if text), None) if quoted else None


def searched(text: str) -> str | None:
    """What to look for: quoted text, else the words after the verb."""
    if quoted := _inside(_QUOTED.search(text)):
        return quoted
    found = _SEARCH_WORDS.search(text)
    rest = text[found.end() :].split("\n")[0] if found else ""
    words = _SEARCH_WORDS.sub("", rest).split()
    kept = [word for word in words if not _SMALL_WORD.fullmatch(word)][:3]
    return " ".join(kept[:1] if kept and re.search(r"[_A-Z(]", kept[0]) else kept).strip("?!.,:;()\"'`«»") or None


def command(text: str) -> str | None:
    """The command to run; `run the tests` is pytest, because the demo has to guess something."""
    if quoted := re.search(r"`([^`\n]{1,300})`", text):
        return quoted[1].strip() or None
    found = _COMMAND_WORDS.search(text)
    if found is None:
        return None
    rest = text[found.end() :].split("\n")[0].strip().strip("\"'«»")[:300]
    if _TESTS.match(rest):
        return "python -m pytest -q"
    if rest.endswith(".py") and " " not in rest:
        return f"python {rest}"
    return rest.rstrip("?!") or None
