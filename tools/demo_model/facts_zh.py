# ruff: noqa: E501 (tables)
"""Chinese facts with the questions that they answer: events and attributes."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

from tools.demo_model import lexicon_zh as lex
from tools.demo_model.facts_en import Fact

# entity kind | statements | questions; {e} is the entity.
ATTRIBUTES = """
thing|{e}重{n}{mass}。/{e}的重量是{n}{mass}。|{e}有多重？/{e}的重量是多少？/{e}重多少？
thing|{e}的价格是{n}元。/{e}售价{n}元。/购买{e}需要{n}元。|{e}的价格是多少？/{e}多少钱？/{e}卖多少钱？
thing|{e}的电池可以使用{n}{time}。/{e}充满电后能用{n}{time}。|{e}的电池能用多久？/{e}充满电能用多久？
thing|{e}的保修期是{n}{span}。/{e}保修{n}{span}。|{e}的保修期是多久？/{e}保修多长时间？/{e}保修多久？
thing|{e}由{material}制成。/{e}是用{material}做的。|{e}是用什么做的？/{e}由什么材料制成？/{e}用的是什么材料？
thing|{e}产自{place}。/{e}在{place}生产。|{e}在哪里生产？/{e}产自哪里？/{e}是哪里生产的？
thing|{e}是{person}在{year}年发明的。/{person}于{year}年发明了{e}。|谁发明了{e}？/{e}是谁发明的？/{e}是哪一年发明的？
thing|{e}由{person}设计。/{e}的设计者是{person}。|谁设计了{e}？/{e}是谁设计的？/{e}的设计者是谁？
thing|{e}长{n}米，宽{m}米。/{e}的长度是{n}米。|{e}有多长？/{e}的长度是多少？
thing|{e}高{n}米。/{e}的高度为{n}厘米。|{e}有多高？/{e}的高度是多少？
thing|{e}有{colour}和{colour2}两种颜色。/{e}是{colour}的。|{e}有哪些颜色？/{e}是什么颜色？
thing|{e}的功率是{n}瓦。|{e}的功率是多少？/{e}的功率有多大？
thing|按住{colour}按钮{n}秒可以重置{e}。/重置{e}请按{colour}按钮。|怎样重置{e}？/如何重置{e}？/重置{e}要按哪个按钮？
thing|{e}每{n}天要清洗一次。/请每{n}周清洗一次{e}。|{e}多久清洗一次？/多久要清洗一次{e}？
thing|{e}应存放在{n}度以下的干燥处。/{e}要放在干燥的{building}里。|{e}应该放在哪里？/{e}应存放在什么地方？/怎样存放{e}？
thing|{e}属于{person}。/{e}的主人是{person}。|{e}是谁的？/{e}属于谁？/{e}的主人是谁？
thing|{e}放在{building}里。/{e}位于{place}的{building}。|{e}在哪里？/{e}放在哪里？/{e}位于哪里？
thing|{e}建于{year}年。/{e}在{year}年建成。|{e}是哪一年建成的？/{e}建于哪一年？/{e}什么时候建成？
thing|{e}的容量是{n}升。/{e}能装{n}升水。|{e}的容量是多少？/{e}能装多少水？
thing|{e}的编号是{code}。/{e}的序列号为{code}。|{e}的编号是什么？/{e}的序列号是多少？
thing|不要在{building}里使用{e}。/{e}不能靠近水和火。|哪里不能使用{e}？/{e}不能靠近什么？
org|{e}由{person}于{year}年创办。/{person}在{year}年创立了{e}。|谁创办了{e}？/{e}是谁创办的？/{e}是哪一年创办的？/{e}的创始人是谁？
org|{e}有{n}名员工。/{e}共有员工{n}人。|{e}有多少员工？/{e}有多少人？
org|{e}的总部在{place}。/{e}的总部设在{place}。|{e}的总部在哪里？/{e}的总部在哪个城市？
org|{e}的{role}是{person}。/{person}是{e}的{role}。|{e}的{role}是谁？/谁是{e}的{role}？
org|{e}在{year}年的利润是{n}万元。/{year}年{e}赚了{n}万元利润。|{e}在{year}年的利润是多少？/{e}的利润有多少？
org|{e}的邮箱是{email}。/请写信到{email}联系{e}。|怎样联系{e}？/{e}的邮箱是什么？
org|{e}的电话是{phone}。/联系{e}请拨打{phone}。|{e}的电话是多少？/怎样联系{e}？
org|{e}{day}的营业时间是{clock}到{clock2}。/{e}{day}{clock}开门。|{e}{day}什么时候开门？/{e}几点开门？/{e}的营业时间是几点？
org|{e}会在{n}天内送货。/{e}送货需要{n}天。|{e}送货要多久？/{e}几天送货？
org|{e}对订单打{digit}折。|{e}打几折？/{e}有什么折扣？
org|在{e}购买的商品{n}天内可以退货。/{e}支持{n}天内退货。|{e}几天内可以退货？/在{e}买的商品多久可以退货？
org|{e}在{year}年收购了{org}。|{e}收购了哪家公司？/{e}什么时候收购了{org}？
person|{e}出生于{year}年。/{e}生于{year}年{digit}月。|{e}是哪一年出生的？/{e}什么时候出生？
person|{e}在{place}长大。/{e}从小住在{place}。|{e}在哪里长大？/{e}小时候住在哪里？
person|{e}的职业是{role}。/{e}是一名{role}。|{e}的职业是什么？/{e}做什么工作？
person|{e}住在{place}。/{e}在{year}年搬到了{place}。|{e}住在哪里？/{e}搬到了哪里？
person|{e}在{place}学习{subject}。/{e}的专业是{subject}。|{e}学习什么专业？/{e}学的是什么？/{e}的专业是什么？
person|{e}于{year}年去世。|{e}是哪一年去世的？/{e}什么时候去世？
person|{e}和{person}结婚了。/{e}的妻子是{person}。|{e}和谁结婚？/{e}的妻子是谁？
person|{e}负责{place}的{building}。/{e}管理{place}的{building}。|{e}负责什么？/谁负责{place}的{building}？/谁管理{place}的{building}？
person|{e}会说{tongue}和{tongue2}。|{e}会说什么语言？/{e}会说哪些语言？
person|{e}在{year}年获得了{brand}奖。|{e}获得了什么奖？/谁获得了{brand}奖？/{e}哪一年获得了{brand}奖？
person|{e}{day}{clock}到达{place}。|{e}什么时候到达？/{e}几点到达{place}？
person|{e}最喜欢吃{food}。/{e}喜欢{food}。|{e}喜欢吃什么？/{e}最喜欢的食物是什么？
person|{e}在{year}年离开了公司。/{e}于{digit}月辞职。|{e}什么时候离开公司？/{e}什么时候辞职？
person|{e}的邮箱是{email}。/{e}的电话是{phone}。|怎样联系{e}？/如何联系{e}？
rule|{e}必须在{date}前支付。/{e}的截止日期是{date}。|{e}的截止日期是哪天？/{e}什么时候到期？/{e}必须在什么时候前支付？
rule|{e}每月{n}元。/{e}共计{n}元。|{e}是多少？/{e}多少钱？
rule|{e}需要提前{n}天申请。/请提前{n}天提出{e}。|{e}要提前多久？/{e}需要提前几天申请？
rule|{e}从{date}开始。/{e}于{date}开始，{date2}结束。|{e}什么时候开始？/{e}从哪天开始？
rule|{e}在{place}举行。/{e}将在{place}的{building}举行。|{e}在哪里举行？/{e}在什么地方举行？
rule|{e}由{person}和{person2}签署。/{person}签署了{e}。|谁签署了{e}？/{e}是谁签署的？/{e}由谁签署？
rule|{e}由{role}批准。/{role}在{date}批准了{e}。|谁批准了{e}？/{e}由谁批准？
rule|{e}持续{n}{time}。/{e}为期{n}{time}。|{e}持续多久？/{e}有多长时间？
rule|{e}的通知期是{n}天。/终止{e}要提前{n}天通知。|{e}的通知期是多久？/怎样终止{e}？
rule|{e}适用于所有{role}。|{e}适用于谁？/{e}适用于哪些人？
rule|{e}因为{reason}而推迟。/由于{reason}，{e}推迟了。|{e}为什么推迟？/为什么{e}推迟了？
rule|{e}因{reason}被取消。|{e}为什么被取消？/{e}被取消的原因是什么？
place|{e}离{place}有{n}公里。/{e}距离{place}{n}公里。|{e}离{place}有多远？/{e}距离{place}多少公里？
place|{year}年{e}因{reason}被毁。/{e}在{year}年遭遇了洪水。|{e}是哪一年被毁的？/{e}因为什么被毁？/{e}哪一年遭遇洪水？
place|{e}还住着{n}户人家。/现在{e}只有{n}户人家。|{e}还住着多少户人家？/{e}有几户人家？
place|{e}以{food}闻名。/{e}因{food}而出名。|{e}以什么闻名？/{e}因什么出名？/{e}什么最有名？
place|{e}在{year}年通了铁路。/铁路于{year}年修到{e}。|{e}什么时候通了铁路？/铁路哪一年修到{e}？
place|{e}后面的山叫{brand}山。/{e}旁边的湖名为{brand}湖。|{e}后面的山叫什么？/{e}旁边的湖叫什么名字？
place|{person}拥有{e}最老的房子。/{e}最老的房子归{person}所有。|谁拥有{e}最老的房子？/{e}最老的房子归谁所有？
place|开往{e}的汽车每{n}分钟一班。/去{e}的船{day}才有。|开往{e}的汽车多久一班？/去{e}的船什么时候有？
dish|{e}要烤{n}分钟。/{e}用{n}度烤{n2}分钟。|{e}要烤多久？/{e}烤几分钟？
dish|做{e}需要{n}克{food}。/{e}里要放{n}克{food}。|做{e}需要多少{food}？/做{e}需要什么？/{e}里要放多少{food}？
dish|{e}要配{food}一起吃。/吃{e}时配上{food}。|{e}配什么吃？/吃{e}时要配什么？
dish|{e}要冷却{n}分钟再切。/{e}做好后放{n}小时。|{e}要冷却多久？/{e}做好后放几小时？
thing|如果{e}有噪音，请拧紧{colour}螺丝。/{e}有噪音说明{colour}螺丝松了。|{e}有噪音怎么办？/{e}有噪音说明什么？
thing|{e}的{colour}灯亮表示要换滤网。/{e}的{colour}灯亮时请换电池。|{e}的{colour}灯亮表示什么？/{e}的{colour}灯亮时怎么办？
thing|{e}最多能载{n}{mass}。/{e}的最大载重是{n}{mass}。|{e}最多能载多少{mass}？/{e}的最大载重是多少？
thing|{e}附带{n}个螺丝和一个{material}袋。/{e}附送一个{material}盒。|{e}附带什么？/{e}附送什么？/{e}附带几个螺丝？
thing|{n}岁以下的儿童不能使用{e}。/{e}不适合{n}岁以下儿童。|谁不能使用{e}？/{e}不适合什么人？/多少岁以下不能使用{e}？
org|{e}因{reason}失去了百分之{n}的客户。|{e}失去了多少客户？/{e}为什么失去客户？
org|{e}从{year}年起不再卖{food}。/{e}已停止销售{food}。|{e}不再卖什么？/{e}停止销售什么？
org|{e}的地址是{place}{brand}路{n}号。/寄给{e}的信请寄{place}{brand}路{n}号。|{e}的地址是什么？/寄给{e}的信寄到哪里？
org|{e}每月付给{role}{n}元。/{e}的{role}每月挣{n}元。|{e}每月付给{role}多少钱？/{e}的{role}挣多少钱？
org|{e}的账目由{person}管理。/{person}管理{e}的账目。|谁管理{e}的账目？/{e}的账目由谁管理？
person|{e}{day}丢了{building}的钥匙。/{e}丢了一个{colour}的包。|{e}丢了什么？/谁丢了{building}的钥匙？/{e}什么时候丢了钥匙？
person|{e}把{building}刷成了{colour}。/{e}画了一幅{place}的画。|{e}把{building}刷成了什么颜色？/{e}画了什么？/谁把{building}刷成了{colour}？
person|{e}用了{n}天从{place}走到{place2}。|{e}用了多少天走到{place2}？/{e}从哪里出发？/谁从{place}走到{place2}？
person|{e}不能吃{food}。/{e}要少吃{food}。|{e}不能吃什么？/{e}要少吃什么？
person|{e}把钱藏在{building}里。/{e}把信放在{material}盒子后面。|{e}把钱藏在哪里？/谁把钱藏在{building}里？/{e}把信放在哪里？
person|{e}写了{n}本{subject}书。|{e}写了几本书？/{e}写了什么书？/谁写了{n}本{subject}书？
person|{e}向{person}借了{n}元。/{person}借给{e}{n}元。|{e}借了多少钱？/谁借给{e}{n}元？/{e}向谁借了钱？
rule|违反{e}罚款{n}元。/违反{e}要交{n}元。|违反{e}罚多少钱？/违反{e}会怎样？
rule|{e}取代了{year}年的旧版。/{role}在{year}年修改了{e}。|{e}取代了什么？/谁修改了{e}？/{e}是哪一年修改的？
rule|{e}至少需要{n}票。|{e}至少需要几票？/{e}需要多少票？
rule|{e}在{building}保存{n}年。/{e}的副本保存在{building}。|{e}保存在哪里？/{e}保存多久？/{e}的副本在哪里？
rule|{person}反对{e}。/{e}遭到{person}的反对。|谁反对{e}？/{e}遭到谁的反对？
rule|{e}由{person}负责。/{person}负责{e}。|谁负责{e}？/{e}由谁负责？/{e}的负责人是谁？
"""
ROWS = tuple(tuple(row.split("|")) for row in ATTRIBUTES.strip().splitlines())
KINDS = ("thing", "org", "person", "rule", "place", "dish")
_BUILDINGS = "厨房 地下室 车库 办公室 大厅 图书馆 车间 实验室 仓库 档案室 食堂 会议室 阁楼 院子 商店 工厂".split()
_REASONS = "大雪 罢工 停电 缺少资金 天气不好 水泵故障 没有许可证 火灾 成本太高 交货延迟 生病 软件错误 洪水 邻居投诉 人手不足".split()
_SUFFIXES = "公司 集团 银行 书店 食品厂 汽车厂 学校 酒店 超市 出版社 软件公司 餐厅 医院 研究所 博物馆".split()
_VALUES: dict[str, Callable[[Random], str]] = {
    "n": lambda r: str(r.choice((r.randint(2, 60), r.randint(2, 900), r.randint(2, 20), r.randint(100, 9999)))),
    "m": lambda r: str(r.choice((r.randint(2, 60), round(r.uniform(1, 30), 1)))),
    "digit": lambda r: r.choice(lex.NUMERALS) if r.random() < 0.5 else str(r.randint(2, 9)),
    "mass": lambda r: r.choice(("公斤", "克", "吨", "千克")),
    "time": lambda r: r.choice(("小时", "天", "周", "个月", "年", "分钟")),
    "span": lambda r: r.choice(("年", "个月", "天")),
    "place": lambda r: r.choice(lex.PLACES) if r.random() < 0.8 else lex.invent_brand(r) + r.choice("县市镇村"),
    "person": lambda r: lex.invent_name(r),
    "year": lambda r: str(r.randint(1650, 2026)),
    "colour": lambda r: r.choice("红色 绿色 蓝色 黄色 黑色 白色 灰色 棕色 银色 橙色 紫色".split()),
    "material": lambda r: r.choice("钢 木头 玻璃 塑料 皮革 铜 羊毛 棉花 陶土 纸 竹子 石头 铝".split()),
    "building": lambda r: r.choice(_BUILDINGS),
    "code": lambda r: "".join(r.choice("ABCDEFHKMPRTX") for _ in range(2)) + f"-{r.randint(100, 9999)}",
    "role": lambda r: r.choice(lex.PEOPLE),
    "org": lambda r: organisation(r),
    "brand": lambda r: lex.invent_brand(r),
    "email": lambda r: f"{''.join(r.choice('abcdefghklmnorstuw') for _ in range(5))}@{r.choice(('example', 'mail', 'test'))}.com",
    "phone": lambda r: f"{r.randint(10, 999)}-{r.randint(1000, 99999)}",
    "clock": lambda r: f"{r.randint(6, 20)}点" if r.random() < 0.5 else f"{r.randint(6, 20)}:{r.choice(('00', '15', '30'))}",
    "day": lambda r: r.choice(("周一", "周二", "周三", "周五", "周末", "星期六", "星期日")),
    "date": lambda r: r.choice((f"{r.randint(1, 12)}月{r.randint(1, 28)}日", f"{r.randint(1950, 2026)}年{r.randint(1, 12)}月{r.randint(1, 28)}日", f"{r.randint(1, 12)}月")),
    "subject": lambda r: r.choice("化学 法律 历史 音乐 物理 医学 生物 经济 艺术 地质".split()),
    "tongue": lambda r: r.choice("法语 德语 英语 日语 俄语 西班牙语 意大利语 韩语".split()),
    "food": lambda r: r.choice("面条 米饭 饺子 奶酪 鱼 苹果 蛋糕 豆腐 汤 羊肉".split()),
    "reason": lambda r: r.choice(_REASONS),
}  # fmt: skip


def organisation(rng: Random) -> str:
    """Return a company's name."""
    return (lex.invent_brand(rng) if rng.random() < 0.7 else rng.choice(lex.PLACES)) + rng.choice(_SUFFIXES)


def entity(rng: Random, kind: str, noun: str = "") -> str:
    """Return a subject of `kind`."""
    if kind == "person":
        return lex.invent_name(rng)
    if kind == "place":
        return lex.invent_brand(rng) + rng.choice("村岛山湖镇城港寨")
    if kind == "dish":
        return (lex.invent_brand(rng) if rng.random() < 0.5 else rng.choice(lex.THINGS[-12:])) + rng.choice(
            "汤 面 粥 饭 派 糕 沙拉 馅饼 布丁 炖肉".split()
        )
    if kind == "org":
        return organisation(rng)
    noun = noun or rng.choice(lex.THINGS if kind == "thing" else lex.ABSTRACT)
    mark = rng.choice((lex.invent_brand(rng), rng.choice(lex.ADJECTIVES), rng.choice(lex.PLACES), ""))
    return mark + noun


def fill(template: str, values: dict[str, str], rng: Random) -> str:
    """Fill the slots of `template`, drawing and remembering what `values` does not hold yet."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            values[match[1]] = _VALUES[match[1].rstrip("2")](rng)
        return values[match[1]]

    return re.sub(r"\{(\w+)\}", value, template)


def attribute(
    rng: Random, *, about: str = "", kind: str = "", row: int = -1, rows: tuple[tuple[str, ...], ...] = ROWS
) -> Fact:
    """Return one fact of the table, `about` an entity or a random one."""
    choices = [n for n, r in enumerate(rows) if not kind or r[0] == kind]
    n = row if row >= 0 else rng.choice(choices)
    name, statements, questions = rows[n]
    values = {"e": about or entity(rng, name)}
    options, asked = statements.split("/"), questions.split("/")
    for _ in range(8):
        statement, question = rng.choice(options), rng.choice(asked)
        if _fits(statement, question):
            break
    else:
        statement, question = options[0], asked[0]
    return Fact(fill(statement, values, rng), fill(question, values, rng), f"{values['e']}|{n}")


def _fits(statement: str, question: str) -> bool:
    """Return whether `statement` holds what `question` asks for."""
    if not set(re.findall(r"\{(\w+)\}", question)) <= set(re.findall(r"\{(\w+)\}", statement)):
        return False
    if "谁" in question and not re.search("person|role|\\{e\\}", statement):
        return False
    if re.search("哪一年|什么时候|几点", question) and not re.search("year|date|clock|digit", statement):
        return False
    return not ("哪里" in question and not re.search("place|building|处", statement))


def event(rng: Random, *, verb: str = "", subject: str = "", thing: str = "") -> Fact:
    """Return a sentence with subject, verb and object, and a question about one of its parts."""
    v = verb or rng.choice(lex.VERBS)
    s = subject or rng.choice(
        (
            lex.invent_name(rng),
            rng.choice(lex.PEOPLE),
            organisation(rng),
            rng.choice(lex.PLACES) + "的" + rng.choice(lex.PEOPLE),
        )
    )
    noun = rng.choice(lex.THINGS + lex.ABSTRACT)
    o = thing or rng.choice(
        (noun, rng.choice(lex.ADJECTIVES) + "的" + noun, lex.invent_brand(rng) + noun, rng.choice(lex.PLACES) + noun)
    )
    when = rng.choice((f"{rng.randint(1700, 2026)}年", _VALUES["date"](rng), _VALUES["day"](rng), "去年", "昨天"))
    where = rng.choice((rng.choice(lex.PLACES), rng.choice(_BUILDINGS)))
    n, t = rng.randint(2, 60), _VALUES["time"](rng)
    why = rng.choice(_REASONS)
    forms = [
        (f"{s}在{when}{v}了{o}。", [f"谁{v}了{o}？", f"{s}什么时候{v}了{o}？", f"{s}{v}了什么？", f"{o}是谁{v}的？"]),
        (f"{when}，{s}{v}了{o}。", [f"谁{v}了{o}？", f"{s}{v}了什么？", f"{o}是什么时候{v}的？", f"{when}{s}{v}了什么？"]),
        (f"{o}由{s}{v}。", [f"{o}由谁{v}？", f"谁{v}{o}？", f"谁负责{v}{o}？"]),
        (f"{o}在{where}{v}。", [f"{o}在哪里{v}？", f"在什么地方{v}{o}？"]),
        (f"{s}在{where}{v}了{o}。", [f"{s}在哪里{v}了{o}？", f"谁在{where}{v}了{o}？", f"{s}在{where}{v}了什么？"]),
        (f"{o}每{n}天要{v}一次。", [f"{o}多久{v}一次？", f"多久要{v}一次{o}？"]),
        (f"{v}{o}需要{n}{t}。", [f"{v}{o}需要多久？", f"{v}{o}要多长时间？", f"{o}要多久才能{v}？"]),
        (f"由于{why}，{s}没有{v}{o}。", [f"{s}为什么没有{v}{o}？", f"为什么没有{v}{o}？", f"谁没有{v}{o}？"]),
        (f"{s}因为{why}{v}了{o}。", [f"{s}为什么{v}{o}？", f"为什么{v}了{o}？", f"{s}{v}了什么？"]),
        (f"只有{s}可以{v}{o}。", [f"谁可以{v}{o}？", f"{s}可以{v}什么？"]),
        (f"{v}{o}时，请先{rng.choice(lex.VERBS)}{rng.choice(lex.THINGS)}。", [f"怎样{v}{o}？", f"{v}{o}时要先做什么？", f"如何{v}{o}？"]),
        (f"{s}一共{v}了{n}{rng.choice(('个', '件', '台'))}{o}。", [f"{s}{v}了多少{o}？", f"谁{v}了{n}个{o}？"]),
    ]  # fmt: skip
    sentence, questions = rng.choice(forms)
    return Fact(sentence, rng.choice(questions), f"{v}|{o}|{s}")


def property_of(rng: Random, *, about: str = "", noun: str = "") -> Fact:
    """Return a sentence on any noun of any thing, so that both must be matched to find it."""
    e = about or entity(rng, rng.choice(KINDS))
    o = noun or rng.choice(lex.THINGS + lex.ABSTRACT)
    v = rng.choice(lex.VERBS)
    value = fill(
        rng.choice(("{n}元", "{n}{mass}", "{n}{time}", "{person}", "{place}", "{date}", "{code}", "{n}", "{colour}")),
        {},
        rng,
    )
    who, year, n, where = lex.invent_name(rng), rng.randint(1700, 2026), rng.randint(2, 999), rng.choice(_BUILDINGS)
    forms = [
        (f"{e}的{o}是{value}。", [f"{e}的{o}是什么？", f"{e}的{o}是多少？", f"{e}的{o}怎么样？"]),
        (f"{e}有{rng.choice(lex.ADJECTIVES)}的{o}。", [f"{e}有什么样的{o}？", f"{e}有什么{o}？"]),
        (f"{e}的{o}由{who}{v}。", [f"谁{v}{e}的{o}？", f"{e}的{o}由谁{v}？", f"{e}的{o}是谁{v}的？"]),
        (f"{who}在{year}年{v}了{e}的{o}。", [f"谁{v}了{e}的{o}？", f"{e}的{o}是什么时候{v}的？", f"{e}的{o}是哪一年{v}的？"]),
        (f"{e}有{n}个{o}。", [f"{e}有多少个{o}？", f"{e}有几个{o}？", f"{e}的{o}有多少？"]),
        (f"{e}{v}了{n}个{o}。", [f"{e}{v}了多少{o}？", f"谁{v}了{n}个{o}？", f"{e}{v}了几个{o}？"]),
        (f"{e}的{o}放在{where}。", [f"{e}的{o}放在哪里？", f"{e}的{o}在什么地方？"]),
        (f"由于{rng.choice(_REASONS)}，{e}失去了{o}。", [f"{e}为什么失去了{o}？", f"{e}失去了什么？"]),
        (f"没有{o}，{e}就不能{v}。", [f"没有{o}，{e}会怎样？", f"{e}需要什么才能{v}？"]),
    ]  # fmt: skip
    sentence, questions = rng.choice(forms)
    return Fact(sentence, rng.choice(questions), f"{e}|{o}")
