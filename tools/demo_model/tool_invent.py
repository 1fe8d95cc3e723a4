# ruff: noqa: E501 (tables)
"""Tools put together from a verb, a noun and parameters, with requests made of clauses, in English and Chinese."""

from __future__ import annotations

from random import Random

from tools.demo_model import lexicon_en, lexicon_zh
from tools.demo_model.tool_schemas import Parameter, Tool

_VERBS = [row.split() for row in """create make add register|delete remove erase|update change edit modify|find search locate|get show fetch
|cancel|book reserve|order buy|send|open|close|start launch|stop halt|check inspect|count|print|move|copy duplicate|share|track|rename
|archive|export|import|schedule plan|approve|reject|measure|repair fix|clean|test|download|upload|lock|unlock|describe|rate|compare
|validate|merge|split|compress|resize|sign|paint|deliver ship|draw|list|post|publish|assign|invite|report|review|sell|rent|load
|calculate compute|estimate|convert|activate enable|deactivate disable|subscribe|pay|refund|play|record|analyse|store save""".replace("\n", "").split("|")]  # fmt: skip
_KEYS = {
    "name": "name customer_name full_name label nickname user_name owner client_name person author company",
    "city": "city location place town destination origin country address",
    "int": "count number id size level age days year page limit quantity n x index width height seats port user_id duration",
    "float": "amount price weight value rate length distance temperature speed x y radius factor budget",
    "words": "topic category keyword subject note description comment item product department",
    "quoted": "title text message content caption phrase headline subject",
    "date": "date day start_date deadline due_date",
    "time": "time start_time at",
    "email": "email recipient contact to",
    "path": "path file file_path filename source target",
    "code": "code id order_id serial reference ticket number",
    "url": "url link address page",
    "language": "language target_language",
    "currency": "currency",
    "flag": "urgent verbose public private active recursive",
    "enum(low;medium;high)": "priority level quality",
    "enum(small;medium;large)": "size",
    "enum(json;csv;xml)": "format output_format",
    "list(int)": "numbers values ids",
    "list(one)": "tags labels words items",
    "phone": "phone phone_number mobile",
    "symbol": "symbol ticker code abbreviation",
    "slug": "branch slug name key",
    "digits": "account number barcode serial tracking_number card",
    "expression": "expression formula term",
}
_WEIGHTS = (16, 8, 12, 12, 8, 12, 5, 3, 4, 6, 8, 2, 2, 1, 3, 2, 1, 2, 2, 2, 2, 3, 5, 4, 13)
_NATURAL = {
    "name": (
        "named {}",
        "named '{}'",
        "called {}",
        'called "{}"',
        "with the name '{}'",
        "with name '{}'",
        "for {}",
        "of {}",
        "by {}",
        "to {}",
        "from {}",
        "with {}",
    ),
    "city": ("in {}", "for {}", "at {}", "in the place {}"),
    "quoted": ("with the text {}", "called {}", "titled {}", "saying {}", "{}", "{}", "for {}", "of {}"),
    "date": ("on {}", "for {}", "dated {}"),
    "time": ("at {}", "for {}"),
    "email": ("for {}", "to {}"),
    "path": ("in {}", "from {}", "at {}", "{}", "of {}"),
    "code": ("{}", "number {}", "with the id {}"),
    "int": ("number {}", "{}", "of {}", "for {}", "{} times", "by {}", "with {} parts"),
    "words": ("about {}", "for '{}'", "on {}", "'{}'", "{}", "named {}"),
    "url": ("at {}", "from {}", "{}"),
    "float": ("of {}", "by {}", "{}", "to {}", "for {}", "at {} percent"),
    "expression": ("of {}", "for {}", "{}", "with {}"),
    "symbol": ("of {}", "for {}", "{}"),
    "slug": ("{}", "of {}", "from {}", "to {}", "in {}"),
    "digits": ("{}", "with {}", "number {}", "for {}"),
    "phone": ("{}", "at {}", "with {}"),
    "list(int)": ("of {}", "for {}", "from {}", "{}"),
    "list(one)": ("of {}", "with {}", "{}"),
    "enum(low;medium;high)": ("at {}", "as {}", "of {}"),
    "enum(json;csv;xml)": ("as {}", "in {}", "to {}"),
}
_WHOLE = (
    "What is the {noun} of {v}?",
    "What {noun} has {v}?",
    "Which {noun} belongs to {v}?",
    "Who can {verb} the {noun} {v}?",
    "Where is the {noun} {v}?",
    "How do I {verb} the {noun} {v}?",
    "I want to {verb} the {noun} {v}",
    "For {v}, {verb} the {noun}",
    "{v}: {verb} the {noun}",
    "The {noun} for {v}, please",
    "Let's {verb} {v}, the {noun}",
)
_PAIRS = (
    "What is {a} {joint} {b}?",
    "{verb} {a} {joint} {b}",
    "{verb} the {noun} {a} {joint} {b}",
    "{verb} {a} {joint} the {noun} of {b}",
    "What is {a} {joint} the {noun} of {b}?",
    "How many {noun} are {a} {joint} {b}?",
    "From {a} to {b}: {verb} the {noun}",
    "{joint} {b}, {verb} {a}",
)
_JOINTS = (
    "to by and into over with against for from in of on at under as per through and,then times versus around".split()
)
_BARE = (
    "code",
    "int",
    "float",
    "digits",
    "symbol",
    "expression",
    "words",
    "list(int)",
    "list(one)",
)  # unclear behind others
_KEYED = ("with {k} {v}", "with the {k} {v}", "with {k} {v}", "whose {k} is {v}", "with {k}: {v}", "with {k} = {v}", "using {k} {v}", "with a {k} of {v}", "where {k} is {v}", "({k}: {v})", "({k} {v})", "in the {k} {v}", "on the {k} {v}", "to the {k} {v}", "for the {k} {v}", "from the {k} {v}", "by the {k} {v}", "at the {k} {v}", "into the {k} {v}", "as {k} {v}")  # fmt: skip
_NEXT = (" and {k} {v}", ", {k} {v}", ", {k}: {v}", " and the {k} {v}", ", {k} = {v}", " and {k}: {v}", ", and {k} {v}", " and a {k} of {v}", "; {k}: {v}", " in the {k} {v}", " on the {k} {v}", " to the {k} {v}", " for the {k} {v}", " from the {k} {v}", " by the {k} {v}", " at {k} {v}")  # fmt: skip
_ZH_KEYS = {
    "zh_name": "名字:name 姓名:name 名称:title 客户:customer 联系人:contact 负责人:owner 公司:company 作者:author",
    "zh_city": "城市:city 地点:location 地址:address 目的地:destination",
    "int": "数量:count 编号:id 年龄:age 天数:days 页码:page 人数:people 序号:index",
    "float": "金额:amount 价格:price 重量:weight 长度:length 温度:temperature",
    "zh_text": "主题:topic 关键词:keyword 内容:content 备注:note 类别:category",
    "zh_quoted": "标题:title 文本:text 内容:content 消息:message",
    "date": "日期:date 开始日期:start_date 截止日期:deadline",
    "time": "时间:time",
    "email": "邮箱:email",
    "path": "文件:file 路径:path",
    "code": "编号:code 单号:order_id 型号:model",
    "flag": "紧急:urgent 公开:public",
    "list(zh_thing)": "标签:tags 物品:items",
    "list(int)": "数字:numbers",
    "phone": "电话:phone 手机:mobile",
    "symbol": "代码:symbol 缩写:code",
    "slug": "分支:branch 文件夹:folder",
    "digits": "账号:account 条码:barcode 卡号:card",
    "expression": "公式:formula 表达式:expression",
}
_ZH_WEIGHTS = (20, 8, 12, 14, 8, 10, 5, 3, 4, 6, 8, 2, 2, 2, 3, 3, 5, 4, 10)
_ZH_NATURAL = {
    "zh_name": ("{v}的", "名为“{v}”的", "叫{v}的", "名为{v}的", "“{v}”的"),
    "zh_city": ("{v}的", "在{v}的"),
    "code": ("{v}号", "编号为{v}的"),
    "date": ("{v}的",),
    "int": ("第{v}个",),
    "zh_quoted": ("标题为{v}的", "名为{v}的"),
}
_ZH_BEFORE = ("{k}为{v}的", "{k}是{v}的", "{k}{v}的", "{v}的")
_ZH_WHOLE = (
    "{verb}{noun}{v}",
    "{noun}{v}怎么{verb}？",
    "{noun}{v}的{k}是多少？",
    "{v}的{noun}是什么？",
    "{v}的{noun}是多少？",
    "{k}{v}的{noun}有哪些？",
    "{k}{v}的{noun}是多少？",
    "{noun}：{v}",
    "{verb}{noun}：{v}",
    "{v}，请{verb}{noun}",
    "对{v}{verb}{noun}",
)
_ZH_PAIRS = (
    "{a}的{b}{noun}是多少？",
    "{a}{joint}{b}是多少？",
    "{a}{joint}{b}等于多少？",
    "{verb}{noun}，{joint}{a}到{b}",
    "我要{verb}{noun}，从{a}到{b}",
    "{verb}{a}的{b}{noun}",
    "把{a}{verb}{joint}{b}",
    "{a}{joint}{b}的{noun}",
)
_ZH_JOINTS = "和 与 到 至 对 比 按 跟 为 给 成 在 向".split()
_ZH_FORMS = ("，{k}是{v}", "，{k}为{v}", "，{k}：{v}", "，{k}{v}", "，{k}={v}")


def _zh_word(rng: Random) -> str:
    """Return a made-up word of two or three common characters, so that labels and values differ by place alone."""
    return "".join(rng.sample(lexicon_zh.COMMON, rng.choice((2, 2, 3))))


def _joined(rng: Random, words: list[str]) -> str:
    """Return `words` as one identifier."""
    style = rng.random()
    if style < 0.62:
        return "_".join(words)
    if style < 0.76:
        return words[0] + "".join(w.capitalize() for w in words[1:])
    if style < 0.84:
        return "".join(w.capitalize() for w in words)
    return "-".join(words) if style < 0.96 else "".join(words)


def tool_name(rng: Random, verb: str, noun: list[str]) -> str:
    """Return an identifier made of verb and noun, at times with more around it."""
    words = [verb, *noun] if rng.random() < 0.8 else [*noun, verb]
    if rng.random() < 0.1:
        words.insert(
            rng.choice((0, len(words))),
            rng.choice(("tool", "my", "api", "new", "fast", "v2", "do", "x", "by", "unicode")),
        )
    if rng.random() < 0.06:
        words = [lexicon_en.invent_name(rng).lower(), *words[1:]]
    return _joined(rng, words)


def _noun(rng: Random) -> list[str]:
    """Return a noun of one or two words."""
    noun = rng.choice(rng.choice((lexicon_en.THINGS, lexicon_en.ABSTRACT, lexicon_en.THINGS, lexicon_en.PEOPLE)))
    if rng.random() < 0.2:
        return [rng.choice((*lexicon_en.ADJECTIVES, *lexicon_en.THINGS)), noun]
    return [noun]


def odd_key(rng: Random) -> str:
    """Return a parameter name that tells nothing about its kind: any word or two, or made-up syllables."""
    pools = (lexicon_en.THINGS, lexicon_en.ABSTRACT, lexicon_en.ADJECTIVES, lexicon_en.PEOPLE, lexicon_en.ALL_VERBS)
    word = rng.choice(rng.choice(pools))
    draw = rng.random()
    if draw < 0.15:
        return lexicon_en.invent_name(rng).lower()
    if draw < 0.35:
        return f"{word}_{rng.choice(('name', 'id', 'text', 'value', rng.choice(lexicon_en.ABSTRACT)))}"
    return lexicon_en.plural(word) if draw < 0.5 else word


def _parameters(rng: Random, keys: dict[str, str], weights: tuple[int, ...], most: int) -> list[Parameter]:
    """Return up to `most` parameters with different keys."""
    found: dict[str, Parameter] = {}
    for _ in range(rng.choice((0, 1, 1, 1, 1, 1, 2, 2, 2, 3, 4)[: 8 + most])):
        kind = rng.choices(list(keys), weights)[0]
        said, _, key = rng.choice(keys[kind].split()).rpartition(":")
        if rng.random() < 0.45:
            key = odd_key(rng)
            if said and rng.random() < 0.7:
                said = rng.choice((*lexicon_zh.ABSTRACT, *lexicon_zh.THINGS))
            if said and rng.random() < 0.35:
                said = _zh_word(rng)
        if key not in found and all(said != p.description or not said for p in found.values()):
            found[key] = Parameter(key, kind, description=said)
    parameters = sorted(found.values(), key=lambda _: rng.random())
    return [
        Parameter(p.key, p.kind, p.required, p.description or f"The {p.key.replace('_', ' ')}.") for p in parameters
    ]


def _some_optional(rng: Random, parameters: list[Parameter]) -> tuple[Parameter, ...]:
    """Return `parameters` with the last ones optional now and then."""
    first = len(parameters) if rng.random() < 0.7 else rng.randint(1, max(1, len(parameters)))
    return tuple(Parameter(p.key, p.kind, n < first, p.description) for n, p in enumerate(parameters))


def _clauses(rng: Random, parameters: tuple[Parameter, ...], *, begun: bool = False) -> str:
    """Return the words that give each parameter its value, as a template; `begun` behind another value."""
    text = " " * begun
    natural: set[str] = set()
    order = list(parameters)
    if rng.random() < 0.6:
        rng.shuffle(order)
    order.sort(key=lambda p: not p.required)
    for p in order:
        key = p.key.replace("_", " ") if rng.random() < 0.75 else p.key
        slot = f"{{{p.key}}}"
        single = sum(q.kind == p.kind for q in parameters) == 1
        marked = f"'{slot}'" if p.kind in ("words", "name") and rng.random() < 0.5 else slot
        if (
            p.kind in _NATURAL
            and single
            and not natural & {p.kind}
            and rng.random() < 0.5
            and (not text or p.kind not in _BARE)
        ):
            clause = " " + rng.choice(_NATURAL[p.kind]).format(slot)
            natural.add(p.kind)
        elif text.strip() and rng.random() < 0.85:
            clause = rng.choice(_NEXT).format(k=key, v=marked)
        else:
            clause = " " + rng.choice(_KEYED).format(k=key, v=marked)
        text += clause if p.required else f"[{clause}]"
    return text.removeprefix(" ") if begun else text


def _headless(rng: Random, verb: str, parameters: tuple[Parameter, ...]) -> str:
    """Return a request whose object is a value, not the noun: "Hire {a}, role {b}", "Post the {text} in the {place}"."""
    first = rng.choice([p for p in parameters if p.required])
    rest = tuple(p for p in parameters if p is not first)
    slot = f"{{{first.key}}}"
    marked = f"'{slot}'" if first.kind in ("words", "name") and rng.random() < 0.5 else slot
    key = first.key.replace("_", " ")
    body = f"{verb} {rng.choice((slot, f'the {key} {marked}', f'the {key} {marked}'))}{_clauses(rng, rest, begun=True)}"
    return body[:1].upper() + body[1:]


def invent_en(rng: Random, *, verb: list[str] | None = None, noun: list[str] | None = None) -> Tool:
    """Return a tool with an English description, with the given verb (its synonyms) or noun or random ones."""
    verbs, words = verb or rng.choice(_VERBS), noun or _noun(rng)
    thing = " ".join(words)
    parameters = _some_optional(rng, _parameters(rng, _KEYS, _WEIGHTS, 3))
    mine = rng.choice(verbs)
    a = lexicon_en.article(thing)
    listed = " and ".join(p.key.replace("_", " ") for p in parameters)
    description = rng.choice((
        f"{mine} {a}.", f"{mine} {a}.", f"{mine} the {thing}.", f"{lexicon_en.third_person(mine)} {a}.", f"use this to {mine} {a}.",
        f"tool for {lexicon_en.gerund(mine)} {a}.", f"{mine} {lexicon_en.plural(thing)}.", f"{mine} {a} by {listed}." if listed else f"{mine} {a}",
        f"{mine} {a} with {listed}." if listed else f"{mine} {thing}", f"{thing}: {mine}",
    ))  # fmt: skip
    description = "" if rng.random() < 0.04 else description[:1].upper() + description[1:]
    requests = []
    for _ in range(2):
        said = mine if rng.random() < 0.75 else rng.choice(verbs)
        head = rng.choice(
            (
                f"{said} {a}",
                f"{said} the {thing}",
                f"{said} {thing}",
                f"{said} {a}",
                f"{said} a new {thing}" if said in ("create", "add", "make", "register") else f"{said} the {thing}",
            )
        )
        body = head[:1].upper() + head[1:] + _clauses(rng, parameters)
        draw = rng.random()
        if draw < 0.08 and parameters:
            values = "".join(("" if not n else ", ") + f"{p.key}: {{{p.key}}}" for n, p in enumerate(parameters))
            body = f"{head[:1].upper() + head[1:]}: {values}" if draw < 0.05 else f"{values} - {head}"
        if len(parameters) == 1 and parameters[0].required and rng.random() < 0.25:
            value = f"{{{parameters[0].key}}}"
            body = rng.choice(_WHOLE).format(
                verb=said,
                noun=thing,
                v=value,
                k=parameters[0].key.replace("_", " "),
                third=lexicon_en.third_person(said),
            )
        elif len(parameters) == 2 and all(p.required for p in parameters) and rng.random() < 0.3:
            first, second = (f"{{{p.key}}}" for p in parameters)
            joint = rng.choice(_JOINTS).replace(",", " ")
            body = rng.choice(_PAIRS).format(verb=said, noun=thing, a=first, b=second, joint=joint)
            body = body if body.startswith("{") else body[:1].upper() + body[1:]
        elif rng.random() < 0.22 and any(p.required for p in parameters):
            body = _headless(rng, said, parameters)
        requests.append(body if body.endswith("?") else body + rng.choice((".", ".", ".", "", "!")))
    return Tool(tool_name(rng, mine, words), description, parameters, tuple(requests), "en", f"{verbs[0]} {thing}")


def invent_zh(rng: Random, *, verb: str = "", noun: str = "") -> Tool:
    """Return a tool with a Chinese description; its name is made of English words that say nothing."""
    verb, noun = verb or rng.choice(lexicon_zh.VERBS), noun or rng.choice((*lexicon_zh.THINGS, *lexicon_zh.ABSTRACT))
    noun = _zh_word(rng) if rng.random() < 0.25 else noun
    parameters = _some_optional(rng, _parameters(rng, _ZH_KEYS, _ZH_WEIGHTS, 3))
    name = tool_name(rng, rng.choice(rng.choice(_VERBS)), _noun(rng))
    description = rng.choice(
        (
            f"{verb}{noun}。",
            f"{verb}{noun}。",
            f"用于{verb}{noun}的工具。",
            f"{noun}{verb}",
            f"{verb}一个{noun}。",
            f"这个工具可以{verb}{noun}。",
        )
    )
    requests = []
    for _ in range(2):
        before, after = "", ""
        for n, p in enumerate(parameters):
            label = p.description
            if n == 0 and p.required and rng.random() < 0.5:
                before = rng.choice(_ZH_NATURAL.get(p.kind, ()) + _ZH_BEFORE).format(k=label, v=f"{{{p.key}}}")
                continue
            value = f"“{{{p.key}}}”" if p.kind in ("zh_name", "zh_text") and rng.random() < 0.5 else f"{{{p.key}}}"
            clause = rng.choice(_ZH_FORMS).format(k=label if rng.random() < 0.85 else p.key, v=value)
            after += clause if p.required else f"[{clause}]"
        head = rng.choice(
            (f"{verb}{before}{noun}", f"{verb}{before}{noun}", f"{verb}一个{before}{noun}", f"把{before}{noun}{verb}")
        )
        if len(parameters) == 1 and parameters[0].required and rng.random() < 0.35:  # the value behind or in a question
            value, after = f"{{{parameters[0].key}}}", ""
            head = rng.choice(_ZH_WHOLE).format(verb=verb, noun=noun, v=value, k=parameters[0].description)
        elif len(parameters) == 2 and all(p.required for p in parameters) and rng.random() < 0.3:
            first, second = (f"{{{p.key}}}" for p in parameters)
            head, after = rng.choice(_ZH_PAIRS), ""
            head = head.format(verb=verb, noun=noun, a=first, b=second, joint=rng.choice(_ZH_JOINTS))
        requests.append(head + after + ("" if head.endswith("？") else rng.choice(("。", "。", "", "！"))))
    return Tool(name, description, parameters, tuple(requests), "zh", f"{verb} {noun}")


def rival(rng: Random, tool: Tool) -> Tool:
    """Return another invented tool that shares the verb or the noun with `tool`, or neither."""
    verb, noun = tool.group.split(" ", 1)
    draw = rng.random()
    if tool.language == "en":
        same = next((v for v in _VERBS if v[0] == verb), None)
        return invent_en(rng, verb=same if draw < 0.35 else None, noun=noun.split() if 0.35 <= draw < 0.75 else None)
    return invent_zh(rng, verb=verb if draw < 0.35 else "", noun=noun if 0.35 <= draw < 0.75 else "")
