# ruff: noqa: E501 (tables)
"""Values of tool arguments for training: numbers, names in several scripts, words, paths, expressions, lists."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tools.demo_model import lexicon_en, lexicon_zh
from tools.demo_model.text_sources import load_sentences, load_words

_JP_FAMILY = """佐藤 鈴木 高橋 田中 渡辺 伊藤 山本 中村 小林 加藤 吉田 山田 佐々木 山口 松本 井上 木村 林 斎藤 清水 山崎 森 池田 橋本 阿部
石川 前田 藤田 小川 後藤 岡田 長谷川 村上 近藤 石井 坂本 遠藤 青木 藤井 西村 福田 太田 三浦 岡本 松田 中野 原田 小野 田村""".split()
_JP_GIVEN = """翔 蓮 悠斗 陽菜 葵 結衣 美咲 さくら 健 健太 大輔 直樹 洋子 恵子 裕子 由美 真由美 美穂 優 愛 彩 香織 智子 浩 修 隆 茂 誠
ひなた あかり みゆき ゆい はると そうた りん めい ひろし たかし けんじ あきら タケシ ユキ マリ エリカ ケン リサ""".split()
_HIRAGANA = "".join(map(chr, range(0x3042, 0x3094)))
_KATAKANA = "".join(map(chr, range(0x30A2, 0x30F5))) + "ー"
_ACCENTED = "éèêëáàâäãåæçíîïñóôöøúüßščžřůěąęłńśżőışğ"
_CYRILLIC = "абвгдежзийклмнопрстуфхцчшщыьэюя"
_GREEK = "αβγδεζηθικλμνξοπρστυφχψω"
_FILES = (
    "notes readme report data config main index todo draft summary invoice letter log plan image table list".split()
)
_FOLDERS = "docs src data home tmp logs files images archive project work backup reports".split()
_ENDINGS = "txt md csv json pdf py log yaml html docx xml png".split()
_LANGUAGES = "French German Spanish Italian Chinese Japanese Korean Portuguese Russian Dutch Polish Greek".split()
_ZH_LANGUAGES = "英语 法语 德语 日语 韩语 西班牙语 俄语 意大利语".split()
_CURRENCIES = "USD EUR GBP JPY CNY CHF AUD CAD SEK INR KRW BRL".split()


def any_word(rng: Random) -> str:
    """Return a word of any text, or the halves of two: a value may hold any run of letters."""
    one, other = rng.choice(load_words()), rng.choice(load_words())
    return one if rng.random() < 0.4 else one[: rng.randint(2, 5)] + other[-rng.randint(3, 6) :]


def integer(rng: Random) -> str:
    """Return a whole number."""
    size = rng.choice((10, 10, 100, 100, 1000, 10_000, 100_000, 1_000_000))
    return str(rng.randrange(size) * (-1 if rng.random() < 0.06 else 1))


def decimal(rng: Random) -> str:
    """Return a number with or without decimals."""
    if rng.random() < 0.35:
        return integer(rng)
    sign = "-" if rng.random() < 0.06 else ""
    return (
        f"{sign}{rng.randrange(rng.choice((10, 100, 1000, 100_000)))}.{rng.randrange(10 ** rng.choice((1, 2, 2, 3)))}"
    )


def expression(rng: Random) -> str:
    """Return an arithmetic expression."""
    gap = " " if rng.random() < 0.7 else ""
    parts = [decimal(rng) if rng.random() < 0.3 else str(rng.randrange(rng.choice((10, 100, 1000))))]
    for _ in range(rng.choice((1, 1, 2, 2, 3))):
        parts += [rng.choice("++--**//^%"), str(rng.randrange(rng.choice((10, 100, 1000, 100_000))))]
    if len(parts) > 3 and rng.random() < 0.5:
        parts[:3] = ["(" + gap.join(parts[:3]) + ")"]
    return gap.join(parts)


def person(rng: Random) -> str:
    """Return a personal name in Latin letters."""
    first, last = (
        rng.choice(known)
        if rng.random() < 0.35
        else rng.choice((lexicon_en.invent_name(rng), any_word(rng).capitalize()))
        for known in (lexicon_en.FIRST_NAMES, lexicon_en.LAST_NAMES)
    )
    return f"{first} {last}" if rng.random() < 0.6 else first


def chinese(rng: Random) -> str:
    """Return a Chinese personal name, company or run of characters, some of them rare."""
    draw = rng.random()
    if draw < 0.3:
        return lexicon_zh.invent_name(rng)
    if draw < 0.45:
        return "".join(rng.sample(lexicon_zh.COMMON, rng.choice((2, 3, 3))))
    if draw < 0.65:
        run = "".join(rng.sample(lexicon_zh.COMMON, rng.randint(2, 5)))
        return run + rng.choice(("公司", "集团", "有限公司", "商店", "大学", "银行", ""))
    if draw < 0.85:
        return rng.choice(lexicon_zh.SURNAMES) + "".join(chr(rng.randint(0x4E00, 0x9FA5)) for _ in range(2))
    return "".join(chr(rng.randint(0x4E00, 0x9FA5)) for _ in range(rng.randint(2, 5)))


def japanese(rng: Random) -> str:
    """Return a Japanese personal name, company or run of kana and characters."""
    draw = rng.random()
    if draw < 0.16:
        return "".join(rng.sample(lexicon_zh.COMMON, 2)) + rng.choice(("", *_JP_GIVEN))
    if draw < 0.4:
        return rng.choice(_JP_FAMILY) + rng.choice(("", "", " ")) + rng.choice(_JP_GIVEN)
    kana = "".join(rng.choices(rng.choice((_HIRAGANA, _KATAKANA)), k=rng.randint(2, 8)))
    if draw < 0.6:
        return kana
    if draw < 0.8:
        return kana + rng.choice(("株式会社", "商店", "銀行", "会", "さん", "大学"))
    return "".join(rng.choice((rng.choice(_HIRAGANA), rng.choice(lexicon_zh.COMMON))) for _ in range(rng.randint(2, 6)))


def foreign(rng: Random) -> str:
    """Return a word with letters outside ASCII: accented, Cyrillic or Greek."""
    draw = rng.random()
    if draw < 0.6:
        word = list(lexicon_en.invent_name(rng))
        for _ in range(rng.randint(1, 2)):
            word.insert(rng.randint(1, len(word)), rng.choice(_ACCENTED))
        return "".join(word)
    letters = _CYRILLIC if draw < 0.88 else _GREEK
    return "".join(rng.choices(letters, k=rng.randint(3, 8))).capitalize()


def city(rng: Random) -> str:
    """Return a place in Latin letters."""
    draw = rng.random()
    place = rng.choice(lexicon_en.PLACES) if draw < 0.5 else lexicon_en.invent_name(rng)
    place = any_word(rng).capitalize() if rng.random() < 0.2 else place
    if draw > 0.85:
        place = f"{rng.choice(('New', 'San', 'Port', 'Saint', 'East', 'Los'))} {place}"
    return (
        f"{place}, {rng.choice([*lexicon_en.PLACES, 'UK', 'CA', 'NY', 'TX', 'US'])}" if rng.random() < 0.15 else place
    )


def words(rng: Random) -> str:
    """Return one to six lower-case words, at times with a name or number."""
    pools = (lexicon_en.THINGS, lexicon_en.ABSTRACT, lexicon_en.ADJECTIVES, lexicon_en.PEOPLE)
    found = [
        any_word(rng) if rng.random() < 0.4 else rng.choice(rng.choice(pools))
        for _ in range(rng.choice((1, 1, 2, 2, 3, 4)))
    ]
    if rng.random() < 0.2:
        found.insert(rng.randint(0, len(found)), rng.choice((lexicon_en.invent_name(rng), integer(rng))))
    if len(found) > 2 and rng.random() < 0.5:
        found.insert(1, rng.choice(("of the", "for the", "in the", "and", "with")))
    return " ".join(found)


def topic(rng: Random) -> str:
    """Return what to look up: "the warranty of the lamp", "brass kettle"."""
    if rng.random() < 0.4:
        noun, thing = rng.choice(lexicon_en.ABSTRACT), rng.choice(lexicon_en.THINGS)
        article = rng.choice(("the ", "the ", ""))
        return f"{article}{noun} of the {thing}" if rng.random() < 0.6 else f"{thing} {noun}"
    return rng.choice((words, person, words, city))(rng)


def sentence(rng: Random) -> str:
    """Return a phrase or a short sentence, for quotes."""
    draw = rng.random()
    if draw < 0.35:
        text = words(rng)
        return text.capitalize() if rng.random() < 0.4 else text
    if draw < 0.6:
        return rng.choice(load_sentences())[: rng.randint(20, 60)].rsplit(" ", 1)[0].rstrip(" ,.;:('\"-")
    if draw < 0.8:
        tail = rng.choice(("", "", "!", ".", "?"))
        return f"{rng.choice(('Hello', 'Good morning', 'Dear', 'Thanks', 'Hi'))} {person(rng)}{tail}"
    return rng.choice((foreign, chinese, japanese, person))(rng)


def zh_text(rng: Random) -> str:
    """Return a short Chinese phrase."""
    adjective, thing = rng.choice(lexicon_zh.ADJECTIVES), rng.choice(lexicon_zh.THINGS)
    noun, verb = rng.choice(lexicon_zh.ABSTRACT), rng.choice(lexicon_zh.VERBS)
    forms = (adjective + thing, f"{thing}的{noun}", verb + thing, f"{noun}{verb}", f"今天{verb}{thing}", thing)
    return rng.choice(forms)


def zh_city(rng: Random) -> str:
    """Return a Chinese place."""
    return (
        rng.choice(lexicon_zh.PLACES) if rng.random() < 0.6 else lexicon_zh.invent_brand(rng) + rng.choice("市县镇区")
    )


def day(rng: Random) -> str:
    """Return a date or a weekday."""
    date = f"{rng.randint(1990, 2035)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
    return date if rng.random() < 0.7 else rng.choice(lexicon_en.DAYS)


def clock(rng: Random) -> str:
    """Return a time of day."""
    return f"{rng.randint(0, 23):02}:{rng.randrange(0, 60, 5):02}"


def email(rng: Random) -> str:
    """Return an e-mail address."""
    name = rng.choice((rng.choice(lexicon_en.FIRST_NAMES), lexicon_en.invent_name(rng), rng.choice(lexicon_en.PEOPLE)))
    return f"{name.lower()}@{lexicon_en.invent_name(rng).lower()}.{rng.choice(('com', 'org', 'net', 'de', 'cn'))}"


def path(rng: Random) -> str:
    """Return a file name with or without folders."""
    stems = (
        *_FILES,
        *(any_word(rng) for _ in _FILES),
        rng.choice(lexicon_en.THINGS),
        lexicon_en.invent_name(rng).lower(),
    )
    name = rng.choice(stems) + rng.choice(("", "", "", "_" + rng.choice(_FILES), "-2", str(rng.randrange(100))))
    folders = [rng.choice((*_FOLDERS, rng.choice(lexicon_en.THINGS))) for _ in range(rng.choice((0, 0, 0, 1, 1, 2)))]
    start = "/" if folders and rng.random() < 0.4 else ""
    return start + "/".join([*folders, f"{name}.{rng.choice(_ENDINGS)}"])


def code(rng: Random) -> str:
    """Return an identifier such as "A-1042"."""
    letters = "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=rng.randint(1, 3)))
    return f"{letters}{rng.choice(('', '-', '-'))}{rng.randint(1, 99999)}"


def web(rng: Random) -> str:
    """Return a web address."""
    tail = rng.choice(("", "", "/" + rng.choice(_FILES), "/" + rng.choice(lexicon_en.THINGS)))
    return f"https://{rng.choice(('www.', ''))}{lexicon_en.invent_name(rng).lower()}.{rng.choice(('com', 'org', 'net'))}{tail}"


def name(rng: Random) -> str:
    """Return a name in any script."""
    return rng.choices((person, chinese, japanese, foreign), (0.4, 0.24, 0.26, 0.1))[0](rng)


KINDS: dict[str, Callable[[Random], str]] = {
    "int": integer,
    "float": decimal,
    "expression": expression,
    "name": name,
    "city": city,
    "words": words,
    "topic": topic,
    "quoted": sentence,
    "date": day,
    "time": clock,
    "email": email,
    "path": path,
    "code": code,
    "url": web,
    "language": lambda rng: rng.choice(_LANGUAGES),
    "symbol": lambda rng: "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=rng.randint(2, 5))),
    "slug": lambda rng: f"{words(rng).split(' ')[0]}-{rng.randint(0, 99)}",
    "digits": lambda rng: "".join(
        rng.choices(rng.sample("0123456789", rng.choice((2, 3, 10, 10))), k=rng.randint(5, 11))
    ),
    "currency": lambda rng: rng.choice(_CURRENCIES),
    "zh_name": lambda rng: rng.choices((chinese, japanese, person, foreign), (0.55, 0.3, 0.1, 0.05))[0](rng),
    "zh_city": zh_city,
    "zh_text": zh_text,
    "zh_language": lambda rng: rng.choice(_ZH_LANGUAGES),
}
