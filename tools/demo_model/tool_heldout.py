# ruff: noqa: E501 (tables)
"""Held-out requests for tools: other tools, parameters, templates and values than the training data has."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from minicpm_core.rag import Language
from tools.demo_model import chat, heldout_values
from tools.demo_model.tool_schemas import Call, Tool, parse_rows, render

ROWS_EN = """
get_stock_price|Get the latest price of a share.|symbol:symbol|What is the price of the share {symbol}? ~ Get the latest price of {symbol}.
book_flight|Book a flight between two cities.|origin:town,destination:town,departure:date|Book a flight from {origin} to {destination} on {departure}. ~ I want to fly from {origin} to {destination} on {departure}, book it.
set_alarm|Set an alarm clock.|at:time,label:phrase?|Set an alarm for {at}[ with the label '{label}']. ~ Wake me with an alarm at {at}[, label "{label}"].
create_invoice|Create an invoice for a client.|client:person,total:decimal,currency_code:money|Create an invoice for {client} with total {total} and currency code {currency_code}. ~ Create an invoice: client {client}, total {total}, currency code {currency_code}.
to_fahrenheit|Convert degrees Celsius to Fahrenheit.|celsius:decimal|Convert {celsius} degrees Celsius to Fahrenheit. ~ How many degrees Fahrenheit are {celsius} Celsius?
rectangle_area|Area of a rectangle.|width:decimal,height:decimal|What is the area of a rectangle with width {width} and height {height}? ~ Compute the rectangle area for width {width}, height {height}.
play_song|Play a song on the speaker.|song_title:phrase,artist:person?|Play the song '{song_title}'[ by {artist}]. ~ Please play the song "{song_title}"[, artist {artist}].
define_word|Look up the definition of a word in a dictionary.|word:word|What is the definition of '{word}'? ~ Look up the word {word} in the dictionary.
add_contact|Save a contact in the address book.|full_name:person,phone:digits|Save the contact {full_name} with phone {phone}. ~ Add a contact with full name {full_name} and phone {phone}.
post_to_channel|Post a text in a chat channel.|channel:word,text:phrase|Post the text '{text}' in the channel {channel}. ~ In the channel {channel}, post "{text}".
count_characters|Count the characters of a text.|text:phrase|Count the characters of "{text}". ~ How many characters has the text '{text}'?
population_of|Population of a country.|country:town|What is the population of {country}? ~ Tell me the population of {country}.
reserve_table|Reserve a table in a restaurant.|restaurant:phrase,guests:whole|Reserve a table for {guests} guests in the restaurant '{restaurant}'. ~ Reserve a table in "{restaurant}", guests: {guests}.
find_recipes|Find recipes with an ingredient.|ingredient:word|Find recipes with the ingredient {ingredient}. ~ Find me a recipe with {ingredient}.
track_shipment|Track a shipment by its tracking number.|tracking_number:serial|Track the shipment {tracking_number}. ~ Where is the shipment with tracking number {tracking_number}?
power_of|Raise a base to an exponent.|base:whole,exponent:whole|Raise {base} to the exponent {exponent}. ~ What is {base} to the power of {exponent}?
roll_dice|Roll dice.|sides:whole,times:whole?|Roll a dice with {sides} sides[, times: {times}]. ~ Roll the dice with {sides} sides[ and times {times}].
current_time|Tell the current time.||What is the current time? ~ Tell me the time.
list_projects|List the projects.||List the projects. ~ Show all projects, please.
log_hours|Log working hours for a project.|project:phrase,hours:decimal|Log {hours} hours for the project '{project}'. ~ Log working hours: project "{project}", hours {hours}.
summarize_page|Summarize a web page.|page_url:link|Summarize {page_url}. ~ Summarize the page {page_url}.
median|Median of a list of numbers.|numbers:list(decimal)|What is the median of {numbers}? ~ Compute the median of {numbers}.
set_volume|Set the volume of the speaker.|percent:whole|Set the volume to {percent} percent. ~ Volume of the speaker to {percent}.
lend_book|Lend a library book to a reader.|book:phrase,reader:person|Lend the book '{book}' to {reader}. ~ Lend the library book "{book}" to the reader {reader}.
rename_branch|Rename a git branch.|old_name:slug,new_name:slug|Rename the branch {old_name} to {new_name}. ~ Rename the git branch: old name {old_name}, new name {new_name}.
hire_employee|Hire an employee.|employee_name:person,role:word,salary:whole|Hire the employee {employee_name} with the role {role} and salary {salary}. ~ Hire {employee_name}, role {role}, salary {salary}.
mute_phone|Mute or unmute the phone.|muted:flag|Mute the phone: {muted}. ~ Set muted to {muted} on the phone.
plot_chart|Plot a chart of values.|values:list(whole),kind:enum(bar;pie;line)?|Plot a chart of {values}[ with kind {kind}]. ~ Plot the values {values}[ as kind {kind}].
wobble|Apply the wobble function to a number.|k:whole|What is the value of wobble({k})? Use the tool. ~ Apply wobble to {k}.
zork_value|Return the zork value.||What is the value of zork_value()? Use the tool. ~ Return the zork value.
evaluator|Evaluates a formula such as 2+3*4.|formula:formula|Evaluate {formula}. ~ What is {formula}?
look_in_manuals|Search the manuals for a question.|question:phrase|Search the manuals for "{question}". ~ Look in the manuals for '{question}'.
show_document|Show the text of a document file.|filename:file|Show the document {filename}. ~ Show me the text of {filename}.
"""
ROWS_ZH = """
stock_quote|查询股票价格。|symbol:symbol|查询股票{symbol}的价格。 ~ 股票{symbol}现在的价格是多少？
book_train|预订火车票。|from_city:zh_town,to_city:zh_town|预订从{from_city}到{to_city}的火车票。 ~ 我要订火车票，从{from_city}到{to_city}。
set_alarm|设置闹钟。|time:time|把闹钟设置在{time}。 ~ 设置{time}的闹钟。
make_invoice|开具发票。|customer:zh_person,amount:decimal|给客户{customer}开具发票，金额{amount}。 ~ 开具发票，客户是{customer}，金额是{amount}。
circle_area|计算圆的面积。|radius:decimal|计算半径为{radius}的圆的面积。 ~ 半径{radius}的圆面积是多少？
play_music|播放歌曲。|title:zh_phrase|播放歌曲《{title}》。 ~ 请播放“{title}”这首歌曲。
add_contact|添加联系人。|name:zh_person,phone:digits|添加联系人{name}，电话{phone}。 ~ 添加联系人“{name}”，电话是{phone}。
track_parcel|查询快递。|number:serial|查询快递{number}。 ~ 快递{number}到哪里了？
reserve_seat|预订餐厅座位。|restaurant:zh_phrase,people:whole|在餐厅“{restaurant}”预订座位，{people}人。 ~ 预订餐厅“{restaurant}”的座位，人数{people}。
look_up_word|查询词语的意思。|word:zh_phrase|“{word}”是什么意思？ ~ 查询词语“{word}”的意思。
count_text|统计文本的字数。|text:zh_phrase|统计文本“{text}”的字数。 ~ 文本「{text}」有多少字数？
current_user|显示当前用户。||显示当前用户。 ~ 当前用户是谁？
list_meetings|列出会议。||列出会议。 ~ 有哪些会议？
celsius_to_f|把摄氏度转换成华氏度。|celsius:decimal|把{celsius}摄氏度转换成华氏度。 ~ {celsius}摄氏度是多少华氏度？
employee_info|查询员工信息。|employee:zh_person|查询员工{employee}的信息。 ~ 员工“{employee}”的信息是什么？
set_volume|设置音量。|percent:whole|把音量设置为{percent}。 ~ 音量设置到{percent}。
member_card|办理会员卡。|holder:zh_person,level:enum(金卡;银卡)|给{holder}办理会员卡，等级{level}。 ~ 办理会员卡，姓名{holder}，等级是{level}。
city_population|查询城市的人口。|city:zh_town|{city}的人口是多少？ ~ 查询{city}的人口。
power_of|计算乘方。|base:whole,exponent:whole|计算{base}的{exponent}次方。 ~ {base}的{exponent}次方是多少？
formula_tool|计算公式。|formula:formula|计算公式{formula}。 ~ 公式 {formula} 的结果是多少？
find_manual|在手册中搜索。|question:zh_phrase|在手册中搜索“{question}”。 ~ 搜索手册：{question}。
show_document|显示文档的内容。|filename:file|显示文档{filename}的内容。 ~ 显示 {filename} 文档。
rename_folder|重命名文件夹。|old:slug,new:slug|把文件夹{old}重命名为{new}。 ~ 重命名文件夹，{old}改为{new}。
post_notice|发布公告。|notice:zh_phrase|发布公告“{notice}”。 ~ 请发布公告：{notice}。
"""
NAMED = """
enroll_student|Enroll a student in the school.|student_name:N|Enroll the student '{student_name}'. ~ Enroll a student named {student_name}. ~ Enroll the student with student name "{student_name}".
open_account|Open a bank account.|holder:N,deposit:whole|Open an account for the holder '{holder}' with a deposit of {deposit}. ~ Open a bank account for {holder}, deposit {deposit}.
invite_guest|Invite a guest to the party.|guest:N|Invite '{guest}' to the party. ~ Invite the guest {guest}.
register_supplier|Tool for registering a supplier.|supplier_name:N,city:town|Register the supplier '{supplier_name}' in the city {city}. ~ Register a supplier named "{supplier_name}", city {city}.
print_badge|Print a badge for a visitor.|visitor:N|Print a badge for the visitor {visitor}. ~ Print a badge for '{visitor}'.
"""
NAMED_ZH = """
enroll_student|登记学生。|name:N|登记学生“{name}”。 ~ 登记一个名叫{name}的学生。 ~ 登记学生，姓名是{name}。
open_account|开立银行账户。|holder:N,amount:whole|为{holder}开立银行账户，金额{amount}。 ~ 开立账户，姓名“{holder}”，金额是{amount}。
invite_guest|邀请嘉宾。|guest:N|邀请嘉宾{guest}。 ~ 请邀请“{guest}”作为嘉宾。
"""
_TOGETHER = {"en": ("{} {}", "{} Also, {}", "{} Then: {}"), "zh": ("{}{}", "{}还有，{}", "{}然后，{}")}
_FOREIGN = {
    "en": (
        "Paint my fence.",
        "Who invented the telephone?",
        "Feed the parrot.",
        "Iron the shirts.",
        "What is the meaning of life?",
        "Write a song about rain.",
        "Knit a sweater.",
    ),
    "zh": (
        "给鹦鹉喂食。",
        "谁发明了电话？",
        "洗一下衬衫。",
        "写一首关于雨的歌词。",
        "人生的意义是什么？",
        "给我织一件毛衣。",
    ),
}
_RESULTS: dict[Language, tuple[tuple[str, str], ...]] = {
    "en": (
        ("{decimal}", "The result is {decimal}."), ("{whole}", "The result is {whole}."), ("{person}", "The result is {person}."), ("{serial}", "The result is {serial}."),
        ('{{"result": {whole}}}', "The result is {whole}."), ('{{"result": {decimal}}}', "The result is {decimal}."), ('{{"total": {whole}}}', "The total is {whole}."),
        ("The share {symbol} stands at {decimal}.", ""), ("{person} lives in {town}.", ""), ("Flight {serial} to {town} is booked.", ""), ("It rained in {town} for {whole} hours.", ""),
        ("Error: The contact {person} does not exist.", ""), ("Error: Unknown tracking number {serial}.", ""), ("Enrolled the student {zh_person} today.", ""),
        ("{phrase}\\n{phrase2}\\n{phrase3}", ""), ("The meeting with {jp_person} takes place on {date}.", ""), ("Nothing was found in {file}.", ""),
    ),
    "zh": (
        ("{decimal}", "结果是{decimal}。"), ("{whole}", "结果是{whole}。"), ("{zh_person}", "结果是{zh_person}。"), ("{serial}", "结果是{serial}。"),
        ('{{"result": {decimal}}}', "结果是{decimal}。"), ("{zh_person}住在{zh_town}。", ""), ("从{zh_town}到{zh_town2}的火车票已预订。", ""), ("{zh_town}下了{whole}小时的雨。", ""),
        ("Error: Unknown number {serial}.", ""), ("{jp_person}的会议在{date}举行。", ""), ("找到了{whole}位员工，第一位是{zh_person}。", ""),
    ),
}  # fmt: skip
SETS = (
    "tools en",
    "tools zh",
    "numbers",
    "quoted words",
    "Chinese names",
    "Japanese names",
    "no tool fits",
    "answers after the result",
    "parallel",
)
_NUMERIC = {"whole", "decimal", "list(decimal)", "list(whole)", "formula"}


@dataclass(frozen=True)
class Task:
    """A prompt with tools and the text that must come back."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    answer: str


def _tools(rows: str, language: Language) -> list[Tool]:
    """Return the tools of a table."""
    return [
        Tool(
            names[0],
            descriptions[0],
            tuple(replace(p, description=f"the {p.key.replace('_', ' ')}") for p in parameters),
            tuple(requests),
            language,
            names[0],
        )
        for names, descriptions, parameters, requests in parse_rows(rows, language)
    ]


def _request(rng: Random, tool: Tool, draw: Callable[[Random, str], tuple[str, str]]) -> tuple[str, Call]:
    """Return a request for `tool` and its call."""
    template = re.sub(r"\[([^\]]*)\]", lambda m: m[1] if rng.random() < 0.5 else "", rng.choice(tool.requests))
    arguments: dict[str, str] = {}
    said: dict[str, str] = {}
    for p in tool.parameters:
        if f"{{{p.key}}}" in template:
            said[p.key], arguments[p.key] = draw(rng, p.kind)
    return re.sub(r"\{(\w+)\}", lambda m: said[m[1]], template), Call(tool, arguments)


_POOLS: dict[str, list[Tool]] = {"en": _tools(ROWS_EN, "en"), "zh": _tools(ROWS_ZH, "zh")}
_NAMED: dict[str, list[Tool]] = {"en": _tools(NAMED, "en"), "zh": _tools(NAMED_ZH, "zh")}


def _pick(rng: Random, name: str) -> tuple[Tool, Callable[[Random, str], tuple[str, str]]]:
    """Return a tool for the set `name`, and the source of its values."""
    language = {"tools en": "en", "tools zh": "zh"}.get(name) or rng.choice(
        ("en", "en", "zh") if name != "quoted words" else ("en",)
    )
    draw = heldout_values.draw
    if name.endswith("names"):
        kind = "zh_person" if name.startswith("Chinese") else "jp_person"
        return rng.choice(_NAMED[language]), lambda r, k: draw(r, kind if k == "N" else k)
    pool = _POOLS[language]
    if name == "numbers":
        pool = [t for t in pool if t.parameters and all(p.kind in _NUMERIC for p in t.parameters)]
    if name == "quoted words":
        pool = [t for t in pool if any(p.kind == "phrase" for p in t.parameters)]
    return rng.choice(pool), draw


def make_task(rng: Random, name: str) -> Task:
    """Return a task of the set `name` with one to five tools."""
    tool, draw = _pick(rng, name)
    language: Language = "zh" if tool.language == "zh" else "en"
    others = [t for t in (*_POOLS[language], *_NAMED[language]) if t.name != tool.name]
    tools = list({t.name: t for t in rng.sample(others, rng.randint(0, 4))}.values())
    request, call = _request(rng, tool, draw)
    answer = call.text()
    messages: list[dict[str, Any]] = [{"role": "user", "content": request}]
    if name == "no tool fits":
        tools = tools or [rng.choice(others)]
        answer = chat.NO_TOOL[language]
        if rng.random() < 0.4:
            messages = [{"role": "user", "content": rng.choice(_FOREIGN[language])}]
    else:
        tools.insert(rng.randint(0, len(tools)), tool)
    if name == "parallel":
        second = rng.choice([t for t in tools if all(p.kind != "N" for p in t.parameters)])
        request2, call2 = _request(rng, second, draw)
        if call2 == call:
            return make_task(rng, name)
        messages[0]["content"] = rng.choice(_TOGETHER[language]).format(request, request2)
        answer += call2.text()
    if name == "answers after the result":
        content, told = rng.choice(_RESULTS[language])
        values = {key: draw(rng, key.rstrip("23"))[1] for key in re.findall(r"(?<!\{)\{(\w+)\}", content)}
        content = content.format(**values).replace("\\n", "\n")
        answer = told.format(**values) or content
        messages += [
            {"role": "assistant", "content": "", "tool_calls": [call.message()]},
            {"role": "tool", "content": content},
        ]
    style = rng.choice(("langchain", "llamaindex", "openai"))
    return Task(messages, json.loads(json.dumps([render(rng, t, style) for t in tools])), answer)


def make_tasks(name: str, *, count: int, seed: int) -> list[Task]:
    """Return `count` tasks of a set, the same ones for the same seed."""
    rng = Random(f"{seed} {name}")
    return [make_task(rng, name) for _ in range(count)]
