"""Plainly worded questions over two hand-written texts that no generator makes."""

from __future__ import annotations

from tools.demo_model.heldout import Question

_EN = (
    "The community garden on Mill Lane opens at 7 in the morning and closes at sunset. Dogs must stay on a leash.",
    "Each member rents one bed of 12 square metres for 40 euros a year. The fee is collected in January.",
    "Water is free between April and October. In winter the taps are turned off because the pipes could freeze.",
    "Ms Halvorsen looks after the tool shed. Borrowed spades and rakes must be returned the same evening.",
    "The summer party takes place on the first Saturday of July. Every member brings a cake or a salad.",
)
_ZH = (
    "社区花园早上七点开门，日落时关门。狗必须拴绳。",
    "每位会员租一块十二平方米的菜地，每年四十元，一月收费。",
    "四月到十月用水免费。冬天关闭水龙头，因为水管可能冻裂。",
    "工具房由何女士管理。借走的铲子当天晚上必须归还。",
    "夏季聚会在七月的第一个星期六举行，每位会员带一个蛋糕。",
)


def _ask(passages: tuple[str, ...], language: str, rows: tuple[tuple[str, int | None], ...]) -> list[Question]:
    """Return the questions of one text."""
    return [Question(text, list(passages), right, language) for text, right in rows]  # type: ignore[arg-type]


PLAIN_QUESTIONS = [
    *_ask(
        _EN,
        "en",
        (
            ("When does the garden open?", 1),
            ("How much does a bed cost per year?", 2),
            ("Why are the taps turned off in winter?", 3),
            ("Who looks after the tool shed?", 4),
            ("When is the summer party?", 5),
            ("Where can I buy a parking permit?", None),
        ),
    ),
    *_ask(
        _ZH,
        "zh",
        (
            ("花园几点开门？", 1),
            ("一块菜地每年多少钱？", 2),
            ("冬天为什么关闭水龙头？", 3),
            ("谁管理工具房？", 4),
            ("夏季聚会什么时候举行？", 5),
            ("停车证在哪里办理？", None),
        ),
    ),
]
