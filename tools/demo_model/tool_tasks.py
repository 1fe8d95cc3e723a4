# ruff: noqa: E501 (tables)
"""Training examples with tools: one call, several, none, the answer to a result, and earlier turns before them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any

from minicpm_core.rag import Language
from tools.demo_model import chat, facts_en, facts_zh, lexicon_en, tool_table_en, tool_table_zh
from tools.demo_model.encoding import NO_TOOL, Example
from tools.demo_model.fact_tasks import ask_attribute, ask_property
from tools.demo_model.tool_invent import invent_en, invent_zh, odd_key, rival
from tools.demo_model.tool_requests import direct_request, make_request
from tools.demo_model.tool_results import draw_result
from tools.demo_model.tool_schemas import Call, Tool, parse_rows, render
from tools.demo_model.tool_values import KINDS

_ROWS = {"en": parse_rows(tool_table_en.ROWS, "en"), "zh": parse_rows(tool_table_zh.ROWS, "zh")}
# Rows of one group could serve the same request, so they never stand in one prompt.
_GROUPS = {
    "weather": "weather get_weather forecast get_temperature weather_forecast get_forecast",
    "search": "search_documents web_search search google baidu",
    "customer": "create_customer register_client add_company",
    "sum": "add sum_list",
    "calculator": "calculator solve",
    "magic": "magic_function magic_value factorial",
}
_GROUP_OF = {name: group for group, names in _GROUPS.items() for name in names.split()}
_ARITHMETIC = {
    "multiply",
    "sum",
    "subtract",
    "divide",
    "square_root",
    "magic",
    "average",
    "compute_tax",
    "calculator",
    "root_of",
    "ratio",
}
_SYSTEMS = ("You are a helpful assistant.", "You are a helpful assistant with tools.", "Use the tools when they fit.", "Be brief.",
            "You are MiniCPM.", "Answer in one sentence.", "你是一个有用的助手。", "需要时请使用工具。")  # fmt: skip
_LIMIT = ("Write a poem.", "Tell me a story.", "What is the capital of France?", "Explain gravity.", "How does a computer work?",
          "Who wrote Hamlet?", "Give me a recipe.", "What do you think?", "Sing a song.", "How old are you?")  # fmt: skip
_LIMIT_ZH = ("写一首诗。", "法国的首都是哪里？", "什么是人工智能？", "推荐一本书。", "帮我写一篇文章。", "你几岁了？")
_SEARCH = {
    "en": (
        "Search the documents: {}",
        "Search: {}",
        "Look this up in the documents: {}",
        "Search the documents for the answer. {}",
    ),
    "zh": ("搜索文档：{}", "请在文档中查找：{}", "在文档中搜索：{}"),
}
_SEARCH_TOPIC = {
    "en": (
        "Search the documents for {}.",
        "Find {} in the documents.",
        "Look up {} in the documents.",
        "What do the documents say about {}?",
        "Search for {}.",
        "Search the documents for {}",
    ),
    "zh": ("搜索文档：{}。", "在文档中搜索{}。", "文档中关于{}是怎么说的？", "在文档里查找{}。", "搜索{}。"),
}
_BOTH_EN = (
    "{} {}",
    "{} {}",
    "{} Also: {}",
    "{} And then: {}",
    "First: {} Second: {}",
    "{} {} Do both.",
    "Two things. {} {}",
)
_BOTH_ZH = ("{}{}", "{}{}", "{}另外，{}", "{}然后{}", "第一，{}第二，{}")


def table_tool(rng: Random, language: Language) -> Tool:
    """Return a tool of the table under one of its names."""
    names, descriptions, parameters, requests = rng.choice(_ROWS[language])
    group = _GROUP_OF.get(names[0], names[0])
    shown = tuple(replace(p, description=f"The {p.key.replace('_', ' ')}.") for p in parameters)
    if rng.random() < 0.35:  # the keys say nothing, so that types and descriptions must
        odd = dict(zip([p.key for p in shown], {odd_key(rng): None for _ in range(9)}, strict=False))
        shown = tuple(replace(p, key=odd[p.key]) for p in shown)
        for key, other in odd.items():
            requests = [text.replace(f"{{{key}}}", f"{{{{{other}}}}}") for text in requests]
        requests = [text.replace("{{", "{").replace("}}", "}") for text in requests]
    name = rng.choice(names)
    if rng.random() < 0.12:
        name = rng.choice(
            (
                f"{name}_tool",
                f"my_{name}",
                name.replace("_", "-"),
                f"{name}_v2",
                f"do_{name}",
                lexicon_en.invent_name(rng).lower(),
            )
        )
    return Tool(name, rng.choice(descriptions), shown, tuple(requests), language, group)


def draw_tool(rng: Random, language: Language) -> Tool:
    """Return a tool of the table or an invented one."""
    if rng.random() < 0.5:
        return table_tool(rng, language)
    return (invent_en if language == "en" else invent_zh)(rng)


def _clash(one: Tool, other: Tool) -> bool:
    """Return whether a request could mean either tool."""
    pair = {one.group, other.group}
    return one.group == other.group or one.name == other.name or ("calculator" in pair and pair <= _ARITHMETIC)


def draw_others(rng: Random, tool: Tool, count: int) -> list[Tool]:
    """Return up to `count` tools that could not serve a request for `tool`."""
    found: list[Tool] = []
    for _ in range(count * 2):
        if len(found) == count:
            break
        invented = " " in tool.group and rng.random() < 0.6
        other = rival(rng, tool) if invented else draw_tool(rng, rng.choice((tool.language, tool.language, "en")))  # type: ignore[arg-type]
        if not any(_clash(other, t) for t in (tool, *found)):
            found.append(other)
    return found


@dataclass(frozen=True)
class Turn:
    """A user's request, the calls it asks for, their results and the answer in words."""

    request: str
    calls: tuple[Call, ...]
    results: tuple[str, ...] = ()
    answer: str = ""

    def messages(self) -> list[dict[str, Any]]:
        """Return the turn as chat messages, without the answer."""
        calls = {"role": "assistant", "content": "", "tool_calls": [call.message() for call in self.calls]}
        user = {"role": "user", "content": self.request}
        return [user, calls, *({"role": "tool", "content": text} for text in self.results)]


def draw_turn(rng: Random, tool: Tool, *, second: Tool | None = None) -> Turn:
    """Return a whole turn with `tool`, or with both tools."""
    language: Language = "zh" if tool.language == "zh" else "en"
    request, call = make_request(rng, tool)
    content, answer = draw_result(rng, language)
    if second is None:
        return Turn(request, (call,), (content,), answer)
    request2, call2 = make_request(rng, second)
    kinds = ("int", "float", "name", "city")
    values = [KINDS[rng.choice(kinds)](rng) for _ in range(2)]
    said = "The results are {} and {}." if language == "en" else "结果是{}和{}。"
    if rng.random() < 0.4:
        pairs = [
            pair
            for pair in (draw_result(rng, language) for _ in range(12))
            if pair[0] == pair[1] and "\n" not in pair[0]
        ][:2]
        if len(pairs) == 2:
            values, said = [pair[0] for pair in pairs], "{} {}" if language == "en" else "{}{}"
    both = rng.choice(_BOTH_EN if language == "en" else _BOTH_ZH).format(request, request2)
    return Turn(both, (call, call2), tuple(values), said.format(*values))


def assemble(
    rng: Random, tools: list[Tool], turn_of: list[dict[str, Any]], question: str, answer: str, chosen: int
) -> Example:
    """Return the example of `tools` in one style of schema, with a system text and thinking now and then."""
    style = rng.choices(("langchain", "llamaindex", "openai"), (0.5, 0.25, 0.25))[0]
    messages = list(turn_of)
    if rng.random() < 0.25:
        messages.insert(0, {"role": "system", "content": rng.choice(_SYSTEMS)})
    thinking = False if rng.random() < 0.15 else None
    schemas = [render(rng, tool, style) for tool in tools]
    return Example(question, answer, messages=messages, enable_thinking=thinking, tools=schemas, chosen=chosen)


def _set_of(rng: Random, tool: Tool) -> list[Tool]:
    """Return `tool` among up to four others."""
    count = rng.choices((0, 1, 2, 3, 4), (0.22, 0.2, 0.26, 0.17, 0.15))[0]
    tools = [tool, *draw_others(rng, tool, count)]
    rng.shuffle(tools)
    return tools


def _earlier(rng: Random, tools: list[Tool]) -> list[dict[str, Any]]:
    """Return the messages of an earlier turn now and then."""
    draw = rng.random()
    if draw < 0.1:
        turn = draw_turn(rng, rng.choice(tools))
        return [*turn.messages(), {"role": "assistant", "content": turn.answer}]
    if draw < 0.13:
        questions, reply = rng.choice(chat.TURNS)
        return [{"role": "user", "content": rng.choice(questions)}, {"role": "assistant", "content": reply}]
    return []


def ask_call(rng: Random, progress: float, language: Language) -> Example:
    """Ask for one call."""
    tool = draw_tool(rng, language)
    tools = _set_of(rng, tool)
    request, call = make_request(rng, tool)
    messages = [*_earlier(rng, tools), {"role": "user", "content": request}]
    return assemble(rng, tools, messages, request, call.text(), tools.index(tool) + 1)


def ask_two(rng: Random, progress: float, language: Language) -> Example:
    """Ask for two calls, of one tool or of two."""
    tool = draw_tool(rng, language)
    tools = _set_of(rng, tool)
    mates = [t for t in tools if t.language == language and t is not tool]
    second = rng.choice(mates) if mates and rng.random() < 0.7 else tool
    turn = draw_turn(rng, tool, second=second)
    if turn.calls[0] == turn.calls[1]:
        return ask_call(rng, progress, language)
    answer = "".join(call.text() for call in turn.calls)
    return assemble(
        rng, tools, [{"role": "user", "content": turn.request}], turn.request, answer, tools.index(tool) + 1
    )


def ask_none(rng: Random, progress: float, language: Language) -> Example:
    """Ask for something that none of the tools does, or greet."""
    tool = draw_tool(rng, language)
    others = draw_others(rng, tool, rng.choice((1, 1, 2, 2, 3, 4)))
    draw = rng.random()
    answer = chat.NO_TOOL[language]
    if draw < 0.2:
        questions, answer = rng.choice([turn for turn in chat.TURNS if turn[1] not in (chat.LIMIT_EN, chat.LIMIT_ZH)])
        request = rng.choice(questions)
    elif draw < 0.3:
        request = rng.choice(_LIMIT if language == "en" else _LIMIT_ZH)
    else:
        request, _ = make_request(rng, tool) if rng.random() < 0.9 else direct_request(rng, tool, language)
    messages = [*_earlier(rng, others), {"role": "user", "content": request}]
    return assemble(rng, others, messages, request, answer, NO_TOOL)


def ask_result(rng: Random, progress: float, language: Language) -> Example:
    """Let the model tell the result of one or two calls."""
    tool = draw_tool(rng, language)
    tools = _set_of(rng, tool)
    turn = draw_turn(rng, tool, second=rng.choice(tools) if rng.random() < 0.15 else None)
    if len(turn.calls) == 2 and turn.calls[1].tool.language != language:
        return ask_result(rng, progress, language)
    messages = [*_earlier(rng, tools), *turn.messages()]
    return assemble(rng, tools, messages, turn.request, turn.answer, -1)


def ask_forced(rng: Random, progress: float, language: Language) -> Example:
    """Let the model fill a call that was forced on it: what the request does not name repeats the request or is zero.

    The choice of the tool is not learnt from these: the weights of its tokens are zero.
    """
    example = ask_none(rng, progress, language)
    if not example.tools:
        return ask_forced(rng, progress, language)
    spoken = example.messages[-1]["content"] if example.messages else ""
    schema = rng.choice(example.tools)["function"]
    arguments = {}
    for key, kind in schema["parameters"]["properties"].items():
        if key in schema["parameters"].get("required", ()):
            empty = {"integer": "0", "number": "0", "boolean": "false", "array": "[]"}
            arguments[key] = kind["enum"][0] if "enum" in kind else empty.get(kind.get("type"), spoken)
    call = Call(Tool(schema["name"], ""), arguments)
    tools = [tool["function"]["name"] for tool in example.tools]
    return replace(example, answer=call.text(), chosen=tools.index(schema["name"]) + 1, forced=True)


def _search_tools(rng: Random, language: Language) -> list[Tool]:
    """Return a search tool of the table, and up to two others behind it."""
    names, descriptions, parameters, _ = next(row for row in _ROWS[language] if row[0][0] == "search_documents")
    tool = Tool(rng.choice(names), rng.choice(descriptions), tuple(parameters), (), language, "search")
    return [tool, *draw_others(rng, tool, rng.choice((0, 1, 2, 2)))]


def ask_found(rng: Random, progress: float, language: Language) -> Example:
    """Search for a question or a topic; let the model call the search tool, or pick the passage that answers."""
    tool, *others = _search_tools(rng, language)
    tools = sorted([tool, *others], key=lambda _: rng.random())
    if rng.random() < 0.45:
        rag = rng.choice((ask_attribute, ask_property))(rng, progress, language)
        query, numbered, answer = rag.question, list(zip(rag.labels, rag.passages, strict=True)), rag.answer
        forms = _SEARCH[language]
    else:
        module = facts_en if language == "en" else facts_zh
        fact = module.property_of(rng)
        about, noun = fact.topic.split("|")
        query = rng.choice((f"the {noun} of {about}", f"{noun} of {about}")) if language == "en" else f"{about}的{noun}"
        rest = [
            rng.choice((module.property_of(rng), module.property_of(rng, about=about), module.event(rng)))
            for _ in range(rng.randint(0, 3))
        ]
        texts = [fact.sentence, *(other.sentence for other in rest if other.topic != fact.topic)]
        rng.shuffle(texts)
        numbered = list(enumerate(texts, start=1))
        answer = f"[{texts.index(fact.sentence) + 1}] {fact.sentence}"
        forms = _SEARCH_TOPIC[language]
    request = rng.choice(forms).format(query)
    call = Call(tool, {tool.parameters[0].key: query})
    if rng.random() < 0.4:
        return assemble(rng, tools, [{"role": "user", "content": request}], request, call.text(), tools.index(tool) + 1)
    content = "\n".join(f"[{label}] {' '.join(text.split())}" for label, text in numbered)
    return assemble(rng, tools, Turn(request, (call,), (content,)).messages(), request, answer, -1)
