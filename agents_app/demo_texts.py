"""What the demo model says, in Russian and English. Imports only the demo's reading of requests."""

from __future__ import annotations

from agents_app.demo_requests import Request

_EN = {
    "greeting": (
        "Hi! I am the built-in demo model: no network, no key, just rules. Try “read README.md”, “write "
        "hello.py that "
        "prints hi” (it asks for your approval), “compare a.py and b.py”, “run the tests” or “tell me a long story” "
        "and cancel it halfway."
    ),
    "switching": "This needs an agent that may change things, so I am handing over to the coder.",
    "switch_reason": "The request needs tools that this agent does not have",
    "no_tool": (
        "I have no tool for that in this mode. Switch to another agent, or ask me to read, list or search instead."
    ),
    "ask_read": "Which file should I read? Name it with its path, for example “read README.md”.",
    "ask_write": "What should the file be called? For example “create notes.md” or “write hello.py that prints hi”.",
    "ask_search": "What should I search for? For example “search TODO”.",
    "ask_run": "Which command should I run? For example “run pytest -q”.",
    "ask_mkdir": "What should the folder be called? For example “create folder docs”.",
    "before_read_file": "Let me read {names}.",
    "before_write_file": "I will write the file now; it needs your approval.",
    "before_list_files": "Let me see which files there are.",
    "before_search_in_code": "Searching the code.",
    "before_execute_command": "I would like to run a command; it needs your approval.",
    "before_create_directory": "I will create the folder; it needs your approval.",
    "done_read_file": "I read {subject}, {count} line(s). It starts like this:",
    "done_write_file": "Done: {subject} is written, {written} line(s). Ask me to read it back, or to run it.",
    "done_list_files": "There are {count} entries in {subject}. The first ones:",
    "done_search_in_code": "The search for “{subject}” brought {count} line(s):",
    "done_execute_command": "The command `{subject}` has finished with {count} line(s) of output, the last of them:",
    "done_create_directory": "Done: the folder {subject} is there.",
    "done_tool": "The tool has answered for {subject}. Anything else?",
    "after_edit": (
        "A real model would now propose the change. The demo stops here, so that nothing of yours is "
        "overwritten by rules."
    ),
    "because": " Your reason: {reason}.",
    "rejected": "You rejected the call for {subject}, so nothing was done there.{why} Tell me what to do differently.",
    "failed": "The call for {subject} did not succeed: {error}. Check it and ask me again.",
    "compared": (
        "I compared both files: {a} has {a_lines} line(s), {b} has {b_lines}. They differ in {differing} line(s)."
    ),
    "compared_same": "I compared both files: {a} has {a_lines} line(s), {b} has {b_lines}. Their text is the same.",
    "talk_coder": (
        "Here is how I would start on “{topic}”:\n\n```python\ndef solve(items: list[str]) -> list[str]:\n"
        '    """Keep what is not empty, in order."""\n    return [item for item in items if item]\n```\n\n'
        "Name a file and I will read or write it."
    ),
    "talk_architect": (
        "A plan for “{topic}”:\n\n1. **Goal.** Who needs it, and how success is seen.\n2. **Data.** "
        "Entities, keys and what must "
        "never be.\n3. **Parts.** Modules, with one direction of dependencies.\n4. **Steps.** Small, "
        "each shippable.\n"
        "5. **Risks.** What to measure first.\n\nSay “write docs/plan.md” to keep it."
    ),
    "talk_debug": (
        "Let us find the cause of “{topic}”:\n\n1. Reproduce it with the smallest input.\n2. Read the "
        "first error, not the "
        "last.\n3. Check what changed last.\n4. Prove the cause with a failing test, then fix.\n\nSend me the "
        "traceback, or name the file to read."
    ),
    "talk_ask": (
        "In short, about “{topic}”: keep the state in one place, and let the others subscribe to it.\n\n```python\n"
        'state = {{"count": 0}}\nlisteners = [print]\n\nfor notify in listeners:\n    notify(state)\n```\n\n'
        "Name a file and I will answer from your code."
    ),
}

_RU = {
    "greeting": (
        "Привет! Я встроенная демо-модель: без сети и ключей, одни правила. Попробуйте «прочитай "
        "README.md», «создай hello.py, "
        "который печатает привет» (спросит разрешения), «сравни a.py и b.py», «запусти тесты» или «расскажи длинную "
        "историю» и отмените её на полпути."
    ),
    "switching": "Здесь нужен агент, которому можно менять файлы. Передаю задачу кодеру.",
    "switch_reason": "Для запроса нужны инструменты, которых у этого агента нет",
    "no_tool": (
        "В этом режиме у меня нет подходящего инструмента. Переключите агента или попросите прочитать, "
        "показать или найти."
    ),
    "ask_read": "Какой файл прочитать? Назовите его с путём, например «прочитай README.md».",
    "ask_write": "Как назвать файл? Например: «создай notes.md» или «напиши hello.py, который печатает привет».",
    "ask_search": "Что искать? Например: «найди TODO».",
    "ask_run": "Какую команду запустить? Например: «запусти pytest -q».",
    "ask_mkdir": "Как назвать папку? Например: «создай папку docs».",
    "before_read_file": "Сейчас прочитаю {names}.",
    "before_write_file": "Записываю файл; понадобится ваше разрешение.",
    "before_list_files": "Посмотрю, какие есть файлы.",
    "before_search_in_code": "Ищу в коде.",
    "before_execute_command": "Хочу выполнить команду; понадобится ваше разрешение.",
    "before_create_directory": "Создаю папку; понадобится ваше разрешение.",
    "done_read_file": "Прочитал {subject}, строк: {count}. Начало файла:",
    "done_write_file": "Готово: файл {subject} записан, строк: {written}. Могу прочитать его или запустить.",
    "done_list_files": "В {subject} нашлось записей: {count}. Первые из них:",
    "done_search_in_code": "Поиск «{subject}» дал строк: {count}.",
    "done_execute_command": "Команда `{subject}` завершилась, строк вывода: {count}. Последние из них:",
    "done_create_directory": "Готово: папка {subject} создана.",
    "done_tool": "Инструмент ответил: {subject}. Что дальше?",
    "after_edit": (
        "Настоящая модель предложила бы теперь правку. Демо-модель на этом остановится, чтобы правила "
        "не переписали ваш код."
    ),
    "because": " Причина: {reason}.",
    "rejected": "Вы отклонили вызов ({subject}), поэтому там ничего не сделано.{why} Скажите, как поступить иначе.",
    "failed": "Вызов не удался ({subject}): {error}. Проверьте и попросите ещё раз.",
    "compared": "Сравнил файлы. Строк в {a}: {a_lines}, в {b}: {b_lines}. Различающихся строк: {differing}.",
    "compared_same": "Сравнил файлы. Строк в {a}: {a_lines}, в {b}: {b_lines}. Тексты совпадают.",
    "talk_coder": (
        "Вот с чего я бы начал («{topic}»):\n\n```python\ndef solve(items: list[str]) -> list[str]:\n"
        '    """Оставить непустое, сохранив порядок."""\n    return [item for item in items if item]\n```\n\n'
        "Назовите файл, и я его прочитаю или запишу."
    ),
    "talk_architect": (
        "План («{topic}»):\n\n1. **Цель.** Кому это нужно и как поймём, что получилось.\n2. **Данные.** "
        "Сущности, ключи и "
        "то, чего быть не должно.\n3. **Части.** Модули и одно направление зависимостей.\n4. **Шаги.** "
        "Небольшие, каждый "
        "можно выпустить.\n5. **Риски.** Что измерить первым.\n\nСкажите «создай docs/plan.md», и я его сохраню."
    ),
    "talk_debug": (
        "Ищем причину («{topic}»):\n\n1. Воспроизвести на самом коротком примере.\n2. Читать первую "
        "ошибку, а не последнюю.\n"
        "3. Проверить, что менялось последним.\n4. Доказать причину падающим тестом и исправить.\n\nПришлите "
        "трассировку или назовите файл."
    ),
    "talk_ask": (
        "Коротко («{topic}»): состояние хранится в одном месте, а остальные на него подписаны.\n\n```python\n"
        'state = {{"count": 0}}\nlisteners = [print]\n\nfor notify in listeners:\n    notify(state)\n```\n\n'
        "Назовите файл, и я отвечу по вашему коду."
    ),
}

_TEXTS = {"ru": _RU, "en": _EN}

_STORY_EN = (
    "Chapter {number}. On the {stage} day the little server woke up before its people, counted the "
    "sessions it looked after, "
    "and found every one of them where it had been left. A message came in, short and sleepy, and "
    "the server wrote it "
    "down first and thought about it second, because that was the one rule it never broke."
)
_STORY_RU = (
    "Глава {number}. На {stage} день маленький сервер проснулся раньше людей, пересчитал сессии, за "
    "которыми присматривал, "
    "и все до одной нашёл там, где их оставили. Пришло сообщение, короткое и сонное, и сервер сначала записал его, "
    "а уже потом стал думать, потому что этому единственному правилу он не изменял никогда. Так прошёл и этот день."
)
_STAGES_EN = ("first", "second", "third", "fourth", "fifth", "sixth")
_STAGES_RU = ("первый", "второй", "третий", "четвёртый", "пятый", "шестой", "седьмой")


def knows(key: str) -> bool:
    return key in _EN


def pick(request: Request, key: str, **values: object) -> str:
    return _TEXTS[request.language][key].format(**values) if values else _TEXTS[request.language][key]


def before(request: Request, tools: list[str]) -> str:
    """What is said before the calls go out."""
    joined = " и " if request.language == "ru" else " and "
    return pick(request, f"before_{tools[0]}", names=joined.join(request.paths[:2]))


def persona(offered: frozenset[str]) -> str:
    """Which agent is speaking, told by its tools."""
    if not offered or {"write_file", "execute_command"} <= offered:
        return "coder"
    if "write_file" in offered:
        return "architect"
    return "debug" if "execute_command" in offered else "ask"


def answer(request: Request, speaker: str) -> str:
    """An answer in words alone."""
    if request.wish == "story":
        return _story(request)
    if request.wish == "greeting":
        return pick(request, "greeting")
    kind = "architect" if request.wish == "design" else speaker
    kind = kind if knows(f"talk_{kind}") else "coder"
    return pick(request, f"talk_{kind}", topic=_topic(request.text))


def _story(request: Request) -> str:
    """About three hundred words, so that a cancel can be felt."""
    chapter, stages = (_STORY_RU, _STAGES_RU) if request.language == "ru" else (_STORY_EN, _STAGES_EN)
    return "\n\n".join(chapter.format(number=number, stage=stage) for number, stage in enumerate(stages, start=1))


def _topic(text: str) -> str:
    line = " ".join(text.split()).strip("«»“”\"'?!. ")
    return line if len(line) <= 60 else line[:60].rsplit(" ", 1)[0] + "…"
