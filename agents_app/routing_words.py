"""Words that weigh for an agent wherever they stand, Russian and English; stems as in `routing_openers`."""

import re

from agents_app.routing_openers import Signal, signals

# Anywhere in the text.
ANYWHERE: dict[str, tuple[Signal, ...]] = {
    "coder": signals(
        (2, r"(?:сделай|напиши|поставь|убери|добавь|замени|вставь|используй|перенеси|вынеси|удали|создай|поменяй)\b"),
        (
            2,
            r"(?:i|we)(?:'d| would) like (?:the|it|this|to have)|lets? use|let's use|same (?:thing|for)|"
            r"то же самое|аналогично",
        ),
        (1, r"вместо|instead of|toggle|export\b|экспорт|экран|шапк|sidebar|table\b|page\b|страниц|макет"),
        (
            2,
            r"(?:хо(?:чу|тим|телось бы)|надо|нужно|хотелось бы|сделать так),? чтобы?|пусть\b|i (?:need|"
            r"want) (?:a|an|the)\b",
        ),
        (
            2,
            r"(?:can|could|would) you (?:please )?(?:add|write|make|create|turn|change|implement|rename|move|"
            r"remove|update)",
        ),
        (
            1,
            r"нуж(?:ен|на|ны)\b|should be|must (?:be|have)|обязательн|кнопк|эндпоинт|виджет|скрипт|тесты на|"
            r"юнит|валидац",
        ),
        (
            1,
            r"миграци[юя]|компонент|логировани|readme|докстринг|docstring|endpoint|component|button|dropdown|"
            r"script|unit test",
        ),
        (
            1,
            r"add\b|rename|implement|refactor|replace|create|добав|реализ|созда|migration|column|колонк|"
            r"поле\b|поля\b|header",
        ),
        (3, r"typo\b|typos\b|опечатк|отступ|indent|formatting|форматировани|todo\b|lint|линтер|prettier"),
    ),
    "architect": signals(
        (
            3,
            r"overview|big picture|общ\w{2,3} картин|проработ|границ|boundar|bounded context|"
            r"поток\w{0,2} данных|flow between",
        ),
        (
            3,
            r"cqrs|ddd\b|event sourcing|event-driven|hexagonal|отказоустойчив|fault.toleran|availability|"
            r"multi-?region|шардир|shard",
        ),
        (
            3,
            r"(?:до|перед) (?:начал|разработ|реализац|тем как|старт)|before (?:we |you )?(?:build|start|"
            r"begin|commit)",
        ),
        (
            2,
            r"\w+ (?:or|или|vs|против) \w+|нагрузк|load\b|monorepo|monolith|монолит|документ\b|strategic|"
            r"eventually|long.term",
        ),
        (
            2,
            r"в перспективе|на будущее|interfaces? between|интерфейс\w{0,2} между|взаимодейств|integration|"
            r"интеграци|ownership",
        ),
        (4, r"архитект|architect|спроектир|проектиру|roadmap|роадмап|дорожн\w{1,4} карт|adr\b|rfc\b|техзадани|тз\b"),
        (
            4,
            r"план\b|плана\b|планы\b|plan\b|спланир|декомпоз|decompos|break down|trade-?offs?|pros and cons|"
            r"плюсы и минусы",
        ),
        (
            4,
            r"схем\w{1,3} (?:бд|баз|данных|хранения)|модел\w{1,3} данных|data model|(?:database|db) schema|"
            r"предметн\w{1,4} област",
        ),
        (
            3,
            r"спек[ауи]\b|спецификаци|spec\b|specs\b|specification|proposal|диаграмм|diagram|схему взаимод|"
            r"дизайн|design",
        ),
        (3, r"масштабир|scal(?:e|ing|ab)|стратеги|strateg|концепц|milestone|сущност|entit(?:y|ies)|high-level"),
        (
            3,
            r"как (?:лучше|правильно|бы|можно) (?:бы )?(?:разб|организ|построи|структур|раздел|хран|спроект|"
            r"сдела|реализ)",
        ),
        (
            4,
            r"как (?:организ|построи|структурир|спроект|раздел)|best way to|how (?:should|would|could|"
            r"do) (?:i|we|you) (?:structur|organi|split|scale|model|design|architect)",
        ),
        (
            3,
            r"на (?:этап|задач|шаг|подзадач|модул|сервис|спринт)|into (?:steps|tasks|modules|phases|services|"
            r"stories)",
        ),
        (
            3,
            r"(?:folder|project|directory|module) structure|структур\w{1,3} (?:папок|каталог|директор|"
            r"проекта|модул)",
        ),
        (
            3,
            r"should (?:we|i) (?:pick|choose|go with|use)|(?:что|какой|какую|какое) \w{0,20} ?выбрать|"
            r"выбор\b|выбрать",
        ),
        (
            3,
            r"прежде чем|до того как|код пока|пока не (?:трог|пиш|код)|before (?:we |any |"
            r"you )?\w{0,10} ?(?:cod|writ|implement|touch)",
        ),
        (3, r"don'?t (?:touch|write|change) (?:any |the )?code|no code yet|without (?:writing )?code|без кода"),
        (
            2,
            r"предлож|propos|suggest|подход|approach|контракт|contract|микросервис|microservice|layers|"
            r"сло[иея]\b|слоев",
        ),
        (
            2,
            r"вариант|оцени|evaluat|weigh|требовани|requirement|обсуд|discuss|как бы|from scratch|с нуля|"
            r"продум|подума|подели(?:ть|м)?\b",
        ),
    ),
    "debug": signals(
        (
            3,
            r"отвал|глю[кч]|сбо[йия]|не т(?:от|а|о|е|ем|ом|ой|ого|у)\b|не так\b|съеха|сбрасыва|теряет|виснет|"
            r"зацикл|бел\w{2} экран",
        ),
        (
            3,
            r"complain|segmentation|keeps? \w+ing|(?:gets|got|being) killed|off by|already exists|not found|"
            r"in a loop|infinite loop",
        ),
        (
            3,
            r"(?:blank|white|black) (?:screen|page)|throws?\b|refuses|doubled|disappear|vanish|cpu|spikes?\b|"
            r"garbled|corrupt|not \w{2,20}ing\b",
        ),
        (
            2,
            r"(?:but|и) (?:not|now|still|it|nothing)\b|only (?:on|in|when)\b|только (?:на|в|при)\b|(?:works?|"
            r"pass(?:es)?|worked) (?:fine |ok )?(?:locally|on)",
        ),
        (
            2,
            r"локально|(?:жрет|ест|растет) |дважды|два раза|twice|варнинг|warning|предупрежд|missing|криво|"
            r"лишн|а на|а в\b|но не|wrongly",
        ),
        (
            1,
            r"(?:says|keeps|gets|goes|returns|shows|looks|fires|loads|renders|возвращает|показывает|"
            r"вызывается|приходит)\b|не\b",
        ),
        (
            3,
            r"пада(?:ет|ют|л|ло|ть|ющ)|падени|упал|кр[аэ]ш|вылет|(?:за|под)вис(?:а|л|н|ш|\b)|слом|поломал|"
            r"баг|почин|пофикс|дебаж|отлад|тормоз|лага",
        ),
        (
            3,
            r"crash|broke|fail|bugs?\b|debug|freezes?\b|freezing|frozen\b|hangs?\b|hanging|stuck|flak|"
            r"регресс|regress|segfault|"
            r"oom\b|root cause",
        ),
        (
            4,
            r"утечк|утека|leak|дедлок|deadlock|race condition|гонк[аи]|узк\w{1,3} мест|bottleneck|"
            r"troubleshoot|diagnos|investigat",
        ),
        (
            3,
            r"ругается|ругань|перестал|не понимаю почему|ничего не|nothing (?:happens|shows|works)|"
            r"(?:used to|stopped) work",
        ),
        (
            3,
            r"what(?:'?s| is) (?:wrong|going on|the matter)|figure out why|что не так|в чем (?:проблем|ошибк|"
            r"причин)|что сломал",
        ),
        (
            3,
            r"unexpected|невозможно|exit(?:s|ed)? (?:immediately )?(?:with )?(?:status |code )|с кодом \d|"
            r"exit code|зациклив|вываливает",
        ),
        (
            2,
            r"исправ|fix|ошибк|ошибок|error|exception|исключени|таймаут|timeout|timed out|refused|denied|"
            r"rejected|slow\b|медленн",
        ),
        (
            2,
            r"разберись|разобраться|странно|weird|strange|неправильн|неверн|некорректн|wrong|incorrect|"
            r"пропада|исчеза|теря(?:е|ю)т",
        ),
        (
            2,
            r"(?:от|вы)да[её]т|дублиру|должн[аоы]? быть|expected|getting (?:a|an|this)|"
            r"i get\b|[45]\d\d\b|краснеет",
        ),
        (
            2,
            r"красн(?:ый|ые|ая)|is red\b|is down\b|закрывается|завершается|closes|после (?:обновлени|апдейт|"
            r"мерж|депло)|after (?:the |an )?(?:update|upgrade|deploy|merge)",
        ),
        (
            2,
            r"долго|проблем|problem|issue\b|не видно|не могу|причин|what happened|что случилось|иногда|"
            r"sometimes|randomly|undefined",
        ),
        (
            1,
            r"почему|why|откуда|null\b|пуст(?:ой|ая|ое|ые)|empty|пишет|в проде|прод\b|in prod|билд|сборк|"
            r"лог ниже|логе?\b|опять|again",
        ),
    ),
    "ask": signals(
        (
            3,
            r"(?:example|пример\w?) (?:of|использов|кода|для|how)|thread.?safe|потокобезопас|best practice|"
            r"good way to (?:learn|understand)",
        ),
        (
            2,
            r"что (?:изменил|нового|поменял|выведет|будет если|возвращает)|what (?:changed|happens if|is the|"
            r"are the)|[:,] (?:что|где|зачем)\b",
        ),
        (
            4,
            r"как (?:это |оно |тут |здесь |у нас )?(?:работа|устро|происход|вызыва|обрабат|называ|запуска)|"
            r"что (?:такое|значит|означа|делает|происход)",
        ),
        (
            4,
            r"how (?:does|do) \S{1,60} (?:\S{1,40} ){0,4}(?:work|differ|handle)|what does|what do\b|"
            r"meaning of|walk me through|для чего",
        ),
        (
            3,
            r"разниц|отлича|difference|differ\b|объясн|explain|простыми словами|in simple|умеешь|can you do|"
            r"перескаж|summari[sz]e",
        ),
        (
            2,
            r"смысл|point of|зачем|used for|for\?|использ(?:ован|уетс|уют)|do we (?:have|use)|did (?:they|we|"
            r"you) use|understand",
        ),
        (1, r"в (?:этом )?(?:проект|код|репозитор|сервис)|in th(?:is|e) (?:project|code|repo|service)|vs\b|здесь"),
        (1, r"почему|why|ли\b"),
    ),
}

# A verb in the third person with "не" before it, and its English counterparts: something that does not happen.
DOES_NOT = Signal(
    3,
    re.compile(
        r"\bне \w{2,25}(?:ет|ит|ют|ят|ется|ится|ются|ятся|лся|лась|лось|лись)\b"
        r"|\b(?:doesn|isn|won|wasn|aren|didn|couldn|hasn)'?t\b|\b(?:does|is|will|are) not\b|\bcan'?t \w|"
        r"\bcannot\b|\bnot working"
        r"|\bdon'?t (?:work|pass|load|show|run|start|compile|build|match|fire|appear|open)"
    ),
)

# Looked for in the text as it was typed: what machines print when something went wrong.
TRACE = Signal(
    5,
    re.compile(
        r"Traceback \(most recent|\b[A-Z][A-Za-z]{2,40}(?:Error|Exception)\b|\bpanic: |\bnpm ERR!|\bgoroutine \d|"
        r"\bSegmentation fault|\b(?:ERROR|FATAL|FAILED)\b|\bE/flutter|\berror(?:\[E\d+\]|: )|^\s+at \S{1,200}:\d+|"
        r"\b(?:ECONNREFUSED|ENOENT|EACCES|ELIFECYCLE)\b|\bexit code [1-9]|\bCaused by: ",
        re.MULTILINE,
    ),
)
