"""How requests begin: the words that may stand before the wish, and the orders and questions that open it.

Stems are matched at the start of a word, in lower-cased text with `ё` written `е`; a whole word ends in `\\b`. Patterns
are alternations of literals with bounded repeats, so that matching stays linear. Imports nothing of ours.
"""

import re
from typing import NamedTuple


class Signal(NamedTuple):
    weight: int
    pattern: re.Pattern[str]


def signals(*rows: tuple[int, str]) -> tuple[Signal, ...]:
    """Rows of (weight, stems) as compiled signals."""
    return tuple(Signal(weight, re.compile(rf"\b(?:{stems})")) for weight, stems in rows)


# Politeness and hedges that stand before the word that says what is wanted, at most eight of them.
PREAMBLE = re.compile(
    r"[\W_]*(?:(?:please|pls|plz|can|could|would|will|you|i|we|need|want|to|us|have|let'?s|ok|okay|"
    r"so|now|also|then|and|just|"
    r"hey|пожалуйста|плиз|можешь|можете|мог|бы|ты|вы|а|и|но|теперь|еще|давай|давайте|слушай|надо|"
    r"нужно|так|ну|потом|мне|"
    r"нам|хочу|хотим|можно|просто|быстро|сразу)\b[\W_]*){0,8}"
)

# Only as the first word after the fillers: an order or a question.
OPENERS: dict[str, tuple[Signal, ...]] = {
    "coder": signals(
        (
            3,
            r"добав|напиш|допиш|пропиш|перепиш|сдела|доделай|реализ|созда|переимен|вынес|перенес|замен|удал|"
            r"убер|отрефактор|"
            r"зарефактор|порефактор|поправ|обнов|подключ|сгенер|прикрут|оберн|настро|закомм?ит|запуст|прогон|"
            r"выполн|поменя|"
            r"измен|внедр|интегр|перевед|портир|св[её]рста|закинь|оптимиз|включ|отключ|выключ|установ|постав|"
            r"отформат|форматир|покро|запрет|разреш|отсортир|упрост|скопир|сохран|конверт|сконверт|импорт|"
            r"экспорт|собер|расшир|увелич|"
            r"уменьш|дополн|заверш|закончи|раздел|объедин|приведи|причеши|зарегистр|завед|вставь|впиши|используй",
        ),
        (
            3,
            r"add|write|rename|implement|refactor|extract|replace|remove|delete|drop|convert|create|make|bump|update|"
            r"upgrade|get rid|give (?:the|it|this)|type annotate|annotate|port\b|generate|move|wrap|set ?up|"
            r"install|hook|support|turn|swap|build\b|change|use\b|rewrite|"
            r"migrate|run\b|execute|commit|enable|disable|format|clean|simplif|optimi[sz]e|integrate|finish|complete|"
            r"insert|append|allow|switch|translate|style|sort|cache|expose|захардкод|заверст|подними\b|"
            r"введи\b|закомментир|introduce|inline|split|merge|code\b|"
            r"scaffold|bootstrap|configure|wire|register|increase|decrease|import|export|save|hide|paginate",
        ),
        (1, r"\w{3,30}(?:й|йте|ите|ь|ьте|жи|ди|ни|ти|си|зи|ши|чи)\b"),
    ),
    "architect": signals(
        (
            3,
            r"спроектир|проектир|продум|подума|распиш|распланир|спланир|запланир|набросай|предлож|состав|"
            r"декомпоз|опиши\b",
        ),
        (4, r"design|architect|plan\b|outline|draft|propose|decompose|break\b|sketch|think through|brainstorm"),
    ),
    "debug": signals(
        (3, r"исправ|почин|пофикс|зафикс|фикс|отлад|дебаж|продебаж|разбер|выясн|выяв|диагност|воспроизвед"),
        (3, r"fix|debug|investigat|diagnos|troubleshoot|reproduc|repair|solve|resolve|trace\b|bisect|hunt"),
    ),
    "ask": signals(
        (3, r"(?:в|на|из|с|по|о|при|от|к|под|за|у|до) (?:как(?:ом|ой|их|ими|ую|ого)|чем|чего|кого)\b"),
        (
            3,
            r"(?:in|at|on|from|to|with|for|by) (?:which|what|whom)|does\b|(?:any|got|"
            r"have) (?:an? )?(?:example|idea|docs)",
        ),
        (
            2,
            r"is\b|are\b|were\b|did\b|has\b|(?:а )?это\b|дай пример|а если|коротко|кратко|вопрос|question|"
            r"quick question",
        ),
        (4, r"объясн|поясн|расскаж|растолк|разъясн|перескаж|напомни|explain|tell me|walk me|eli5|summari[sz]e|teach"),
        (3, r"подскаж|покаж|прочита|прочти|сравн|открой|глянь|show|describe|read\b|compare|clarify|list\b|review"),
        (
            3,
            r"что\b|чем\b|где\b|зачем|сколько|кто\b|когда\b|куда\b|откуда|чей\b|есть ли|можно ли|а есть|"
            r"стоит ли|в чем|правда ли",
        ),
        (
            3,
            r"what|where|who\b|who's|whose|how (?:does|do|is|are|many|much|come)|is (?:it|there|this|that)|"
            r"are (?:there|these)",
        ),
        (
            3,
            r"do(?:es)? (?:we|you|this|it|the|i)\b|i (?:overload|use|call)\b|when (?:should|do|does|is|are|"
            r"can|to|would)|did ",
        ),
        (
            2,
            r"как(?:ой|ая|ое|ие|им|их|ого|ую)\b|почему|привет|здравств|добр(?:ый|ое)|hi\b|hello|which|why|"
            r"thanks|спасибо",
        ),
        (1, r"как\b|how\b|should|has\b|was\b"),
    ),
}
