# ruff: noqa: E501 (tables)
"""Values of tool arguments that the training data does not have."""

from __future__ import annotations

import json
from random import Random

from tools.demo_model import heldout

_JP_FAMILY = (
    "松下 大野 上田 杉山 増田 丸山 宮崎 藤原 今井 河野 武田 平野 高木 千葉 安藤 久保 桜井 菅原 新井 野口".split()
)
_JP_GIVEN = (
    "一郎 花子 拓也 千尋 沙織 雄太 亮 麻衣 しおり なおみ ミカ アキラ ともこ ゆうき 涼子 光 聡 まゆ ショウ 正人".split()
)
_JP_FIRMS = """カモメ電機 ひまわり書店 すみれ堂 おはよう商事 サンライズ工業 みどり保険 ホシゾラ出版 つばめ運輸 あおぞら薬局 ヒカリ印刷
こんばんは株式会社 ありがとう合同会社 ニコニコ食堂 もみじ旅館""".split()
_ZH_FIRMS = "你好啊集团 晨曦物流公司 蓝鲸软件 红枫书店 远航贸易 麒麟电子 碧波水务 春笋教育".split()
_PHRASES = """blue notebook|The quiet harbour|meeting moved to noon|Northern lights|see you tomorrow|broken elevator|Annual picnic
|winter sale|two spare keys|Old Mill Street|please call back|How to bake rye bread|green tea only|The last train|ready for pickup
|gas meter reading|Do not disturb|wet paint|Happy birthday, Zoe!|lost umbrella|Which fuse is blown?|kitchen light""".replace("\n", "").split("|")  # fmt: skip
_ZH_PHRASES = "春江花月夜 月光下的海 明天休息 团结互助 停水通知 老地方饭馆 山水之间 如何更换滤芯 雨中漫步 请保持安静 本周六聚餐 竹林小筑 知足常乐".split()
_WORDS = "turquoise lantern meadow saffron pumpkin biscuit cinnamon walnut parsley gardening marketing plumbing general".split()


def _plain(rng: Random, kind: str) -> str:
    """Return a value of a plain kind."""
    number = rng.randint(1, 10 ** rng.randint(1, 5))
    if kind == "jp_person":
        return rng.choice(_JP_FIRMS) if rng.random() < 0.4 else rng.choice(_JP_FAMILY) + rng.choice(_JP_GIVEN)
    if kind == "zh_person":
        return rng.choice(_ZH_FIRMS) if rng.random() < 0.25 else heldout.zh_name(rng)
    if kind == "decimal":
        return rng.choice((str(number), f"{number}.{rng.randint(1, 99)}", f"-{rng.randint(1, 60)}.{rng.randint(1, 9)}"))
    values = {
        "whole": str(number),
        "person": f"{rng.choice(heldout.FIRST)} {rng.choice(heldout.LAST)}",
        "town": rng.choice(heldout.TOWNS),
        "zh_town": rng.choice(heldout.ZH_TOWNS),
        "phrase": rng.choice(_PHRASES),
        "zh_phrase": rng.choice(_ZH_PHRASES),
        "word": rng.choice(_WORDS),
        "date": f"{rng.randint(2020, 2031)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}",
        "time": f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}",
        "symbol": "".join(rng.sample("ABCDEGHKLMNOQRSTUVXYZ", rng.randint(3, 4))),
        "money": rng.choice(("NOK", "PLN", "CZK", "HUF", "DKK", "NZD")),
        "digits": f"0{rng.randint(20, 99)}-{rng.randint(100000, 9999999)}",
        "serial": f"{rng.choice('QJUYIO')}{rng.choice('QJUYIO')}{rng.randint(100, 99999)}",
        "link": f"https://{rng.choice(_WORDS)}.{rng.choice(('io', 'info', 'eu'))}/{rng.choice(_WORDS)}",
        "slug": f"{rng.choice(_WORDS)}-{rng.randint(1, 99)}",
        "file": f"{rng.choice(_WORDS)}{rng.choice(('', '_v2', '-final'))}.{rng.choice(('odt', 'rtf', 'txt', 'pdf', 'tsv'))}",
        "formula": f"{number} {rng.choice('+-*/')} {rng.randint(1, 999)}{rng.choice(('', ' + 7', ' * 12'))}",
    }
    return values[kind]


def draw(rng: Random, kind: str) -> tuple[str, str]:
    """Return a value of `kind` as a request says it and as a call shows it."""
    if kind.startswith("enum("):
        value = rng.choice(kind[5:-1].split(";"))
        return value, value
    if kind == "flag":
        return rng.choice((("true", "true"), ("false", "false")))
    if kind.startswith("list("):
        parts = [_plain(rng, kind[5:-1]) for _ in range(rng.randint(2, 4))]
        return ", ".join(parts[:-1]) + f" and {parts[-1]}", json.dumps([json.loads(p) for p in parts])
    value = _plain(rng, kind)
    return value, value
