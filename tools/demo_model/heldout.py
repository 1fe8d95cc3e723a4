# ruff: noqa: E501 (tables)
"""Held-out questions: other sentences, templates, names and (mostly) attributes than the training data has."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random
from typing import Literal

from minicpm_core.rag import REFUSALS, Language

Kind = Literal["answers", "refusals", "near misses"]
KINDS: tuple[Kind, ...] = ("answers", "refusals", "near misses")

# statement | question ; rows with the same first field describe the same kind of thing. {e} is the thing, {v} the value.
EN_ROWS = """
device|The display of {e} has a diagonal of {v} inches.|What is the diagonal of the display of {e}?
device|{e} charges fully in about {v} minutes through the USB-C port.|How many minutes does {e} take to charge?
device|Up to {v} sensors can be paired with {e} at the same time.|How many sensors can be paired with {e}?
device|A spare filter for {e} can be ordered under part number {c}.|Under which part number can a spare filter for {e} be ordered?
device|The noise level of {e} stays below {v} decibels at full speed.|What is the noise level of {e}?
device|Firmware {c} for {e} fixes a problem with the clock.|Which firmware fixes the clock problem of {e}?
device|If the red light of {e} blinks twice, the tank is empty.|What does it mean when the red light of {e} blinks twice?
device|The cable supplied with {e} is {v} metres long.|How long is the cable supplied with {e}?
device|{e} must be descaled with citric acid after {v} cups.|After how many cups must {e} be descaled?
device|The rubber seal of {e} should be greased twice a year.|How often should the rubber seal of {e} be greased?
device|Do not connect {e} to an extension cord.|What should {e} not be connected to?
device|{p} tested {e} for the magazine {n} and praised the handle.|Who tested {e} for the magazine?
contract|The deposit for {e} is equal to {v} months of rent.|How large is the deposit for {e}?
contract|{p} countersigned the amendment to {e} on {d}.|Who countersigned the amendment to {e}?
contract|Subletting under {e} needs the written consent of {p}.|Whose consent does subletting under {e} need?
contract|Disputes arising from {e} go before the court of {l}.|Which court hears disputes arising from {e}?
contract|Late payment under {e} carries interest of {v} percent.|What interest does late payment under {e} carry?
contract|{e} renews itself automatically unless cancelled by {d}.|By when must {e} be cancelled so that it does not renew itself?
contract|The insurance required by {e} must cover {m}.|What sum must the insurance required by {e} cover?
contract|Keys handed over under {e}: {v} for the front door, two for the mailbox.|How many keys for the front door were handed over under {e}?
town|The market of {e} was destroyed by an earthquake in {y}.|What destroyed the market of {e}?
town|About {v},000 inhabitants were counted in {e} in the census of {y}.|How many inhabitants were counted in {e}?
town|The cathedral of {e} took {v} years to complete.|How many years did the cathedral of {e} take to complete?
town|{p} was elected mayor of {e} with {v} percent of the ballots.|Who was elected mayor of {e}?
town|The river that flows through {e} is called the {n}.|What is the river called that flows through {e}?
town|Trams first ran through {e} on {d}.|When did trams first run through {e}?
town|{e} was twinned with {l} in {y}.|With which town was {e} twinned?
town|The salt trade made {e} rich in the sixteenth century.|What made {e} rich?
firm|{p} chairs the supervisory board of {e}.|Who chairs the supervisory board of {e}?
firm|The shares of {e} fell by {v} percent after the announcement.|By how many percent did the shares of {e} fall?
firm|{e} moved its payroll to a new provider in {y}.|What did {e} move to a new provider?
firm|Invoices for {e} go to {a}.|To which address do invoices for {e} go?
firm|The hotline of {e} is staffed around the clock.|When is the hotline of {e} staffed?
firm|{e} recalled {v} strollers because of a loose hinge.|Why did {e} recall strollers?
firm|The fleet of {e} comprises {v} vans.|How many vans does the fleet of {e} comprise?
firm|Staff of {e} wear a badge with the letter {c}.|What do staff of {e} wear?
person|{e} climbed the north face of Mount {n} without oxygen.|What did {e} climb without oxygen?
person|{e} translated the letters of {p} into Danish.|Whose letters did {e} translate?
person|{e} keeps the spare keys in the drawer under the printer.|Where does {e} keep the spare keys?
person|{e} will present the quarterly figures on {d}.|When will {e} present the quarterly figures?
person|{e} is allergic to hazelnuts and shellfish.|What is {e} allergic to?
person|{e} discovered the comet {c} while looking for a lost glove.|Which comet did {e} discover?
person|The bicycle of {e} was stolen from the yard of the {n} cinema.|What of {e} was stolen?
person|{e} played the cello in the {n} quartet for {v} years.|Which instrument did {e} play in the quartet?
event|Tickets for {e} cost {m} at the door.|How much do tickets for {e} cost?
event|The jury of {e} met behind closed doors in {l}.|Where did the jury of {e} meet?
event|Registration for {e} closes on {d}.|When does registration for {e} close?
event|{p} sponsored the catering of {e}.|Who sponsored the catering of {e}?
event|{e} attracted {v} thousand spectators despite the rain.|How many spectators did {e} attract?
event|The runner-up of {e} received a voucher worth {m}.|What did the runner-up of {e} receive?
recipe|For {e}, whisk {v} eggs with the sugar until foamy.|How many eggs are whisked for {e}?
recipe|{e} rests in the refrigerator for {v} hours.|How many hours does {e} rest in the refrigerator?
recipe|Sprinkle {e} with roasted sesame just before serving.|What is {e} sprinkled with?
recipe|The dough for {e} is kneaded until it no longer sticks.|How long is the dough for {e} kneaded?
"""
ZH_ROWS = """
device|{e}的屏幕对角线为{v}英寸。|{e}的屏幕对角线是多少英寸？
device|{e}通过数据线{v}分钟即可充满。|{e}充满要多少分钟？
device|{e}最多可同时配对{v}个传感器。|{e}最多可以配对几个传感器？
device|{e}的备用滤芯型号为{c}。|{e}的备用滤芯是什么型号？
device|{e}全速运转时噪音低于{v}分贝。|{e}运转时噪音是多少分贝？
device|{e}红灯闪两次表示水箱空了。|{e}红灯闪两次表示什么？
device|随{e}附送的电源线长{v}米。|随{e}附送的电源线有多长？
device|{e}的橡胶圈应每半年上一次油。|{e}的橡胶圈多久上一次油？
device|请勿把{e}接到延长线上。|{e}不能接到什么上？
contract|{e}的违约金为合同总额的百分之{v}。|{e}的违约金是多少？
contract|{p}在{d}为{e}盖了章。|谁为{e}盖了章？
contract|{e}产生的争议由{l}法院审理。|{e}的争议由哪个法院审理？
contract|{e}逾期付款按每天{v}元计息。|{e}逾期付款怎样计息？
contract|未经{p}书面同意，{e}不得转租。|{e}转租要经谁同意？
town|{e}的老市场毁于{y}年的地震。|{e}的老市场毁于什么？
town|{e}的人口约为{v}万。|{e}的人口约有多少？
town|流经{e}的河叫{n}河。|流经{e}的河叫什么？
town|{e}的第一条地铁于{d}通车。|{e}的第一条地铁什么时候通车？
town|{e}在{y}年与{l}结为友好城市。|{e}与哪座城市结为友好城市？
town|{e}以盐业致富。|{e}靠什么致富？
firm|{p}担任{e}监事会主席。|谁担任{e}监事会主席？
firm|{e}的股价下跌了百分之{v}。|{e}的股价下跌了多少？
firm|{e}召回了{v}辆婴儿车，因为铰链松动。|{e}为什么召回婴儿车？
firm|{e}的热线全天有人接听。|{e}的热线什么时候有人接听？
firm|给{e}的发票请寄到{a}。|给{e}的发票寄到哪里？
firm|{e}的车队共有{v}辆面包车。|{e}的车队有多少辆面包车？
person|{e}没有带氧气就登上了{n}峰。|{e}登上了哪座山峰？
person|{e}把备用钥匙放在打印机下面的抽屉里。|{e}把备用钥匙放在哪里？
person|{e}将于{d}汇报季度数据。|{e}什么时候汇报季度数据？
person|{e}对花生和海鲜过敏。|{e}对什么过敏？
person|{e}在找手套时发现了彗星{c}。|{e}发现了哪颗彗星？
person|{e}的自行车在{n}电影院门口被偷了。|{e}的自行车在哪里被偷了？
person|{e}在{n}乐团拉了{v}年大提琴。|{e}拉了几年大提琴？
event|{e}的门票现场售价{v}元。|{e}的门票多少钱？
event|{e}的评委在{l}闭门开会。|{e}的评委在哪里开会？
event|{e}的报名于{d}截止。|{e}的报名什么时候截止？
event|{p}赞助了{e}的餐饮。|谁赞助了{e}的餐饮？
event|{e}吸引了{v}万名观众。|{e}吸引了多少观众？
recipe|做{e}要先把{v}个鸡蛋和糖打发。|做{e}要用几个鸡蛋？
recipe|{e}要在冰箱里放{v}小时。|{e}要在冰箱里放多久？
recipe|{e}的面团要揉到不粘手为止。|{e}的面团要揉到什么程度？
recipe|烤{e}时烤箱要预热到{v}度。|烤{e}时烤箱要预热到多少度？
event|{e}的亚军得到一张{v}元的代金券。|{e}的亚军得到了什么？
recipe|上桌前在{e}上撒一些芝麻。|上桌前在{e}上撒什么？
"""
_EN_ENTITIES = {
    "device": "espresso machine|air purifier|baby monitor|e-bike|hearing aid|label maker|pressure cooker|smoke detector",
    "contract": "tenancy agreement|framework contract|licence deal|loan agreement|cleaning contract|partnership deed",
    "town": "", "firm": "", "person": "",
    "event": "film festival|marathon|flower show|chess open|hackathon|book fair",
    "recipe": "lentil stew|almond tart|pumpkin bread|rhubarb crumble|ginger biscuits|fennel gratin",
}  # fmt: skip
_ZH_ENTITIES = {
    "device": "咖啡机|空气净化器|婴儿监护器|助听器|标签机|高压锅|烟雾报警器|电动车",
    "contract": "租赁协议|框架合同|授权书|借款合同|保洁合同", "town": "", "firm": "", "person": "",
    "event": "电影节|马拉松|花展|围棋赛|编程大赛|书展", "recipe": "扁豆汤|杏仁饼|南瓜面包|姜饼|酸菜鱼",
}  # fmt: skip
_SOUNDS = """zan vel dor mik quo lis tav ren bo sha ulm pex ivo gar nyl est hul jor wim cas pru fen glo yad
osk tri bex lom nav sib cru dax ebb fyr gom hin irn jul kep""".split()
FIRST = "Delphine Rasmus Ottilie Casper Mirela Anselm Yusuf Ingrid Thaddeus Salome Lorcan Beatrix Haruto Zuzana".split()
LAST = "Vandermeer Okonkwo Lindqvist Papadakis Ferreira Szabo Thistlewood Aguirre Bergmann Halloran Moravec".split()
TOWNS = "Ljubljana Bordeaux Casablanca Salzburg Edinburgh Kyoto Quebec Malmo Trieste Zaragoza".split()
_MONTHS = "January February March April May June July August September October November December".split()
_ZH_FAMILY = "欧司褚卫蒋韩施孔章凌霍虞柯管卢莫经房裘缪"
_ZH_GIVEN = "若嘉瑞昕彤泽睿宁钰翰霖萱诗妍皓熙柏岚川渊舟鹭竹溪墨棠枫榆荷菱朔野星澜峰潭燕雁鹏驰桐屿汐沐歌砚"
ZH_TOWNS = "常州 徐州 泉州 保定 大同 开封 遵义 柳州 赣州 延安".split()


@dataclass(frozen=True)
class Question:
    """A question over numbered passages; `right` is the number to cite, or None where a refusal is right."""

    question: str
    passages: list[str]
    right: int | None
    language: Language

    @property
    def answer(self) -> str:
        """The exact expected answer."""
        return REFUSALS[self.language] if self.right is None else f"[{self.right}] {self.passages[self.right - 1]}"


def _rows(language: Language) -> list[tuple[str, str, str]]:
    """Return the table as kind, statement and question."""
    text = EN_ROWS if language == "en" else ZH_ROWS
    return [tuple(row.split("|")) for row in text.strip().splitlines()]  # type: ignore[misc]


def _name(rng: Random) -> str:
    """Return a made-up name from syllables that the training does not use."""
    return "".join(rng.sample(_SOUNDS, 2)).capitalize()


def zh_name(rng: Random) -> str:
    """Return a Chinese personal name."""
    return rng.choice(_ZH_FAMILY) + "".join(rng.sample(_ZH_GIVEN, 2))


def _entity(rng: Random, kind: str, language: Language) -> str:
    """Return a thing of `kind`."""
    if language == "en":
        person = f"{rng.choice(FIRST)} {rng.choice(LAST)}"
        plain = {
            "town": _name(rng),
            "firm": f"{_name(rng)} {rng.choice(('AG', 'Inc', 'Cooperative', 'Partners'))}",
            "person": person,
        }
        return plain.get(kind) or f"the {_name(rng)} {rng.choice(_EN_ENTITIES[kind].split('|'))}"
    brand = "".join(rng.sample(_ZH_GIVEN, 2))
    plain = {
        "town": brand + "镇",
        "firm": brand + rng.choice(("商行", "物流", "制药", "建材")),
        "person": zh_name(rng),
    }
    return plain.get(kind) or brand + rng.choice(_ZH_ENTITIES[kind].split("|"))


def _fill(rng: Random, template: str, entity: str, language: Language) -> str:
    """Fill the slots of a statement or question."""
    day, month, year = rng.randint(1, 28), rng.randrange(12), rng.randint(1700, 2029)
    values = {
        "e": entity,
        "v": str(rng.randint(2, 99)),
        "c": f"{rng.choice('GJLNQSUVWYZ')}{rng.randint(10, 999)}{rng.choice(('', '-B', '.2'))}",
        "y": str(year),
        "m": rng.choice((f"€{rng.randint(5, 95)}.50", f"{rng.randint(2, 95)}0,000 francs", f"${rng.randint(11, 999)}")),
    }
    if language == "en":
        values |= {"p": f"{rng.choice(FIRST)} {rng.choice(LAST)}", "l": rng.choice(TOWNS), "n": _name(rng)}
        values |= {"d": f"{day} {_MONTHS[month]} {year}", "a": f"{_name(rng).lower()}.office@{_name(rng).lower()}.net"}
    else:
        values |= {"p": zh_name(rng), "l": rng.choice(ZH_TOWNS), "n": "".join(rng.sample(_ZH_GIVEN, 2))}
        values |= {
            "d": f"{month + 1}月{day}日",
            "a": f"{rng.choice(ZH_TOWNS)}市{''.join(rng.sample(_ZH_GIVEN, 2))}路{day}号",
        }
    text = re.sub(r"\{(\w)\}", lambda m: values[m[1]], template)
    return text[:1].upper() + text[1:]


def make_question(rng: Random, language: Language, kind: Kind) -> Question:
    """Return a question of `kind` with one to five passages.

    Args:
        rng: source of the draws.
        language: of passages and question.
        kind: "answers": the right passage at a random place; of the others a quarter is about the same thing, a
            quarter has the same attribute of another thing. "refusals": no passage has the attribute, 40 % are about
            the same thing. "near misses": no answer either, but a passage has the same attribute of another thing.
    """
    rows = _rows(language)
    index = rng.randrange(len(rows))
    sort, _, question = rows[index]
    entity = _entity(rng, sort, language)

    def passage(n: int, about: str) -> str:
        parts, used = [_fill(rng, rows[n][1], about, language)], {n, index}
        for _ in range(rng.choice((0, 0, 1, 2))):
            free = [i for i, row in enumerate(rows) if row[0] == rows[n][0] and i not in used]
            if not free:
                break
            extra = rng.choice(free)
            used.add(extra)
            parts.insert(rng.randint(0, len(parts)), _fill(rng, rows[extra][1], about, language))
        return (" " if language == "en" else "").join(parts)

    def other(same_thing: float, same_attribute: float) -> str:
        draw = rng.random()
        if draw < same_thing:
            return passage(rng.choice([i for i, row in enumerate(rows) if row[0] == sort and i != index]), entity)
        if draw < same_thing + same_attribute:
            return passage(index, _entity(rng, sort, language))
        n = rng.choice([i for i in range(len(rows)) if i != index])
        return passage(n, _entity(rng, rows[n][0], language))

    count = rng.randint(1, 5)
    if kind == "answers":
        passages = [other(0.25, 0.25) for _ in range(count - 1)]
        right = rng.randint(1, count)
        passages.insert(right - 1, passage(index, entity))
        return Question(_fill(rng, question, entity, language), passages, right, language)
    if kind == "refusals":
        passages = [other(0.4, 0.0) for _ in range(count)]
    else:
        passages = [*(other(0.25, 0.25) for _ in range(count - 1)), other(0.0, 1.0)]
        rng.shuffle(passages)
    return Question(_fill(rng, question, entity, language), passages, None, language)


def make_set(language: Language, kind: Kind, *, count: int, seed: int) -> list[Question]:
    """Return `count` held-out questions, the same ones for the same seed."""
    rng = Random(f"{seed} {language} {kind}")
    return [make_question(rng, language, kind) for _ in range(count)]
