# ruff: noqa: E501 (tables)
"""English facts with the questions that they answer: events by grammar, attributes by a table."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tools.demo_model import lexicon_en as lex


@dataclass(frozen=True)
class Fact:
    """A sentence and a question that it answers; facts with equal `topic` must not stand against each other."""

    sentence: str
    question: str
    topic: str


# entity kind | statements | questions; {e} is the entity with its article, {E} the same at the start of a sentence.
ATTRIBUTES = """
thing|{E} weighs {n} {mass}./The weight of {e} is {n} {mass}.|How much does {e} weigh?/What is the weight of {e}?/How heavy is {e}?
thing|{E} costs {price}./The price of {e} is {price}./{E} is sold for {price}.|How much does {e} cost?/What is the price of {e}?/What does {e} cost?
thing|The battery of {e} lasts {n} {time}./{E} has a battery that lasts {n} {time}.|How long does the battery of {e} last?/What is the battery life of {e}?/For how many {time} does the battery of {e} run?
thing|The warranty of {e} covers {n} {time}./{E} comes with a warranty of {n} {time}.|How long is the warranty of {e}?/What warranty does {e} have?/How long is {e} under warranty?
thing|{E} is made of {material}./{E} consists of {material} and {material2}.|What is {e} made of?/Which material is {e} made of?/What material was used for {e}?
thing|{E} was made in {place}./{E} is manufactured in {place}.|Where is {e} manufactured?/Where was {e} made?/In which city is {e} made?
thing|{E} was invented by {person} in {year}./{Person} invented {e} in {year}.|Who invented {e}?/When was {e} invented?/Who was the inventor of {e}?
thing|{E} was designed by {person}./The designer of {e} was {person}.|Who designed {e}?/Who was the designer of {e}?
thing|{E} is {n} {length} long and {m} {length} wide./The length of {e} is {n} {length}.|How long is {e}?/What is the length of {e}?
thing|{E} is {n} {length} high./{E} has a height of {n} {length}.|How high is {e}?/How tall is {e}?/What is the height of {e}?
thing|{E} is available in {colour} and {colour2}./{E} comes in {colour}.|In which colours is {e} available?/What colours does {e} come in?/What colour is {e}?
thing|{E} needs {n} watts of power./The power of {e} is {n} watts.|How much power does {e} need?/How many watts does {e} use?
thing|To reset {e}, hold the {colour} button for {n} seconds./{E} is reset by pressing the {colour} button.|How do I reset {e}?/How is {e} reset?/Which button resets {e}?
thing|Clean {e} with {material} and warm water every {n} days./{E} should be cleaned once every {n} weeks.|How often should {e} be cleaned?/How do I clean {e}?
thing|Store {e} in a dry place below {n} degrees./{E} must be kept below {n} degrees.|Where should {e} be stored?/At what temperature must {e} be kept?/How should I store {e}?
thing|{E} belongs to {person}./The owner of {e} is {person}.|Who owns {e}?/Who is the owner of {e}?/To whom does {e} belong?
thing|{E} stands in the {adj} {building}./{E} can be found in the {adj} {building}.|Where does {e} stand?/Where can {e} be found?/Where is {e}?/Where is {e} located?
thing|{E} was built in {year}./Construction of {e} ended in {year}.|When was {e} built?/In which year was {e} built?/How old is {e}?
thing|{E} holds {n} litres of {liquid}./The capacity of {e} is {n} litres.|How much does {e} hold?/What is the capacity of {e}?/How many litres fit into {e}?
thing|The serial number of {e} is {code}./{E} carries the serial number {code}.|What is the serial number of {e}?/Which serial number does {e} carry?
thing|{E} may not be used near {liquid} or open fire./Never use {e} near {liquid}.|Where may {e} not be used?/What must {e} be kept away from?
thing|{E} was bought from {org} for {price}./{Org} sold {e} for {price}.|From whom was {e} bought?/Who sold {e}?/How much was paid for {e}?
org|{E} was founded by {person} in {year}./{Person} founded {e} in {year}.|Who founded {e}?/When was {e} founded?/Who was the founder of {e}?/In which year was {e} founded?
org|{E} has {n} employees in {place}./{E} employs {n} people.|How many employees does {e} have?/How many people work for {e}?/How many people does {e} employ?
org|The head office of {e} is in {place}./{E} has its head office in {place}.|Where is the head office of {e}?/In which city does {e} have its head office?
org|{Person} is the {role} of {e}./The {role} of {e} is {person}.|Who is the {role} of {e}?/What is the name of the {role} of {e}?
org|{E} made a profit of {price} in {year}./The profit of {e} in {year} was {price}.|How much profit did {e} make?/What was the profit of {e} in {year}?
org|{E} can be reached at {email}./The e-mail address of {e} is {email}.|How can I reach {e}?/What is the e-mail address of {e}?/How do I contact {e}?
org|{E} is open from {clock} to {clock2} on {day}./On {day}, {e} opens at {clock}.|When does {e} open on {day}?/At what time does {e} open?/What are the opening hours of {e}?
org|{E} closed its branch in {place} in {year}./In {year}, {e} closed the office in {place}.|Which branch did {e} close?/When did {e} close its branch in {place}?
org|{E} delivers orders within {n} days./Delivery by {e} takes {n} days.|How long does delivery by {e} take?/How fast does {e} deliver orders?
org|{E} gives a discount of {n} percent on orders above {price}.|What discount does {e} give?/How large is the discount of {e}?
org|Goods from {e} may be returned within {n} days./{E} accepts returns within {n} days.|How long can goods from {e} be returned?/Until when does {e} accept returns?
org|{E} bought {org} for {price} in {year}./In {year}, {e} took over {org}.|Which company did {e} buy?/When did {e} take over {org}?
org|The phone number of {e} is {phone}./Call {e} at {phone}.|What is the phone number of {e}?/Which number do I call to reach {e}?
person|{E} was born in {place} on {date}./{E} was born on {date}.|When was {e} born?/What is the birthday of {e}?
person|{E} grew up in {place}./{E} was born and raised in {place}.|Where did {e} grow up?/Where was {e} born?
person|{E} works as {arole} in {place}./{E} has been {arole} since {year}.|What does {e} do for a living?/What is the job of {e}?/What does {e} work as?
person|{E} lives in {place} with two {animal}./{E} moved to {place} in {year}.|Where does {e} live?/To which city did {e} move?
person|{E} studied {subject} in {place}./{E} has a degree in {subject}.|What did {e} study?/Which subject did {e} study?
person|{E} died in {place} in {year}./{E} died in {year}.|When did {e} die?/In which year did {e} die?
person|{E} married {person} in {year}./{E} is married to {person}.|Who did {e} marry?/Who is {e} married to?/When did {e} marry?
person|{E} is responsible for the {adj} {building} in {place}./{E} is in charge of the {building}.|What is {e} responsible for?/What is {e} in charge of?
person|{E} speaks {tongue} and {tongue2}./{E} learnt {tongue} in {place}.|Which languages does {e} speak?/What languages does {e} know?
person|{E} won the {award} award in {year}./In {year}, {e} received the {award} award.|Which award did {e} win?/When did {e} win the {award} award?
person|{E} arrives on {day} at {clock}./{E} will arrive at {clock} on {day}.|When does {e} arrive?/On which day does {e} arrive?
person|{E} prefers {food} to {food2}./The favourite food of {e} is {food}.|What food does {e} prefer?/What is the favourite food of {e}?
person|{E} left the company in {month} {year}./{E} resigned in {month} {year}.|When did {e} leave the company?/When did {e} resign?
person|{E} can be reached at {email}./Write to {e} at {email}.|How can I reach {e}?/What is the e-mail address of {e}?
rule|{E} is due on {date}./{E} must be paid by {date}.|When is {e} due?/By when must {e} be paid?
rule|{E} is {price} per month./{E} amounts to {price}.|How much is {e}?/What is the amount of {e}?/How high is {e}?
rule|{E} must be requested {n} weeks in advance./Request {e} at least {n} weeks before.|How early must {e} be requested?/When do I have to request {e}?
rule|{E} starts on {date} and ends on {date2}./{E} begins on {date}.|When does {e} start?/When does {e} begin?/On which date does {e} start?
rule|{E} takes place in {place} on {day}./{E} will be held in {place}.|Where does {e} take place?/Where will {e} be held?
rule|{E} was signed by {person} and {person2}./{Person} signed {e} on {date}.|Who signed {e}?/By whom was {e} signed?/When was {e} signed?
rule|{E} was approved by the {role} on {date}./The {role} approved {e} in {month}.|Who approved {e}?/When was {e} approved?
rule|{E} lasts {n} {time}./The length of {e} is {n} {time}.|How long does {e} last?/What is the length of {e}?
rule|{E} can be ended with a notice of {n} {time}./The notice period of {e} is {n} {time}.|What is the notice period of {e}?/How can {e} be ended?
rule|{E} applies to all {roles} in {place}./All {roles} are covered by {e}.|To whom does {e} apply?/Who is covered by {e}?
rule|{E} was delayed because of {reason}./Because of {reason}, {e} was postponed.|Why was {e} delayed?/Why was {e} postponed?/What was the reason for the delay of {e}?
rule|{E} was cancelled after {reason}./{E} failed because of {reason}.|Why was {e} cancelled?/Why did {e} fail?
rule|{E} found {n} errors in the {adj} {building}./{n} errors were found by {e}.|How many errors did {e} find?/What did {e} find?
place|{E} lies {n} kilometres {adj} of {place}./{E} is {n} km from {place}.|How far is {e} from {place}?/How many kilometres is {e} from {place}?/What lies {n} kilometres from {place}?
place|{E} was flooded after {reason} in {year}./A flood ruined {e} in {year}.|When was {e} flooded?/What ruined {e}?/In which year was {e} flooded?
place|{N} families still live in {e}./Only {n} families live in {e} today.|How many families live in {e}?/Who still lives in {e}?
place|The oldest house in {e} belongs to {person}./{Person} owns the oldest house in {e}.|Who owns the oldest house in {e}?/To whom does the oldest house in {e} belong?
place|{E} is known for its {animal} and its {food}./People visit {e} because of its {food}.|What is {e} known for?/Why do people visit {e}?
place|{E} got a railway station in {year}./The railway reached {e} in {year}.|When did {e} get a railway station?/When did the railway reach {e}?
place|The mountain above {e} is named {award}./Above {e} rises the mountain {award}.|What is the mountain above {e} named?/Which mountain rises above {e}?
place|{E} lost its town hall in the fire of {year}./The fire of {year} destroyed the town hall of {e}.|What did {e} lose in the fire?/What destroyed the town hall of {e}?/What happened to the town hall of {e}?
place|The bus to {e} leaves every {n} minutes from {place}./Buses run to {e} every {n} minutes.|How often does the bus to {e} leave?/From where does the bus to {e} leave?/How often do buses run to {e}?
dish|Bake {e} for {n} minutes at {n2} degrees./{E} is baked for {n} minutes.|How long is {e} baked?/For how many minutes should {e} be baked?/At what temperature do I bake {e}?
dish|Cut the {food} for {e} into small pieces./For {e}, the {food} is cut into thin slices.|How is the {food} for {e} cut?/What is cut for {e}?/What do I do with the {food} for {e}?
dish|{E} needs {n} grams of {food} and a little {liquid}./Take {n} grams of {food} for {e}.|How many grams of {food} does {e} need?/What does {e} need?/How much {food} goes into {e}?
dish|{E} is served cold with {food}./Serve {e} with {food} and {food2}.|What is {e} served with?/How is {e} served?/What goes with {e}?
dish|Let {e} stand for {n} hours before you cut it./{E} has to cool for {n} minutes.|How long must {e} cool?/How long does {e} have to stand?
thing|If {e} makes a noise, tighten the {colour} screw./A noise in {e} means that the {colour} screw is loose.|What should I do if {e} makes a noise?/What does a noise in {e} mean?
thing|When the {colour} lamp of {e} flashes, change the filter./The {colour} lamp of {e} shows that the filter is full.|What does the {colour} lamp of {e} show?/When should the filter of {e} be changed?/What must I do when the {colour} lamp of {e} flashes?
thing|{E} carries up to {n} {mass}./The largest load of {e} is {n} {mass}.|How many {mass} can {e} carry?/What is the largest load of {e}?
thing|{E} comes with {n} spare screws and a {material} bag./A bag of {material} is supplied with {e}.|What comes with {e}?/What is supplied with {e}?/How many spare screws come with {e}?
thing|Children under {n} may not use {e} alone./{E} is not suitable for children under {n}.|Who may not use {e}?/From what age may children use {e}?/For whom is {e} not suitable?
thing|{Person} repaired {e} with {material} and wire./{Person} found {e} in a {building}.|Who repaired {e}?/Who found {e}?/What did {person} repair?
org|{E} lost {n} percent of its customers after {reason}./{Reason} cost {e} {n} percent of its customers.|How many customers did {e} lose?/Why did {e} lose customers?/What cost {e} its customers?
org|{Person} keeps the accounts of {e}./The accounts of {e} are kept by {person}.|Who keeps the accounts of {e}?/By whom are the accounts of {e} kept?
org|{E} stopped selling {food} in {year}./Since {year}, {e} no longer sells {food}.|What did {e} stop selling?/When did {e} stop selling {food}?/What does {e} no longer sell?
org|Letters to {e} should be sent to {n} {award} Street, {place}./The postal address of {e} is {n} {award} Street.|Where should letters to {e} be sent?/What is the postal address of {e}?
org|{E} pays its {roles} {price} a month./The {roles} of {e} earn {price} a month.|How much does {e} pay its {roles}?/What do the {roles} of {e} earn?
person|{E} lost the key to the {building} on {day}./On {day}, {e} lost a {colour} bag.|What did {e} lose?/When did {e} lose the key?/Who lost the key to the {building}?
person|{E} painted the {building} {colour} and {colour2}./{E} painted a picture of {place}.|What did {e} paint?/Who painted the {building}?/Which colour did {e} paint the {building}?
person|{E} sailed from {place} to {place2} in {n} days./{E} crossed the sea in {n} days.|How long did {e} sail?/In how many days did {e} cross the sea?/From where did {e} sail?
person|{E} cannot eat {food} or {food2}./{E} must avoid {food}.|What can {e} not eat?/What must {e} avoid?
person|{E} hid the money behind the {material} box./The money was hidden by {e} under the {building}.|Where did {e} hide the money?/Who hid the money?/What did {e} hide?
person|{E} wrote {n} books on {subject}./{E} is the author of {n} books about {subject}.|How many books did {e} write?/What did {e} write books about?/Who wrote {n} books on {subject}?
person|{E} borrowed {price} from {person}./{Person} lent {e} {price}.|How much did {e} borrow?/From whom did {e} borrow {price}?/Who lent {e} {price}?
rule|Anyone who breaks {e} pays a fine of {price}./Breaking {e} costs {price}.|What is the fine for breaking {e}?/How much does breaking {e} cost?/What must anyone who breaks {e} pay?
rule|{E} replaces the old version of {year}./{E} was changed by the {role} in {year}.|What does {e} replace?/Who changed {e}?/When was {e} changed?
rule|{E} needs at least {n} votes./At least {n} votes are needed for {e}.|How many votes does {e} need?/What does {e} need?
rule|{E} is kept in the {building} for {n} years./A copy of {e} is kept in the {building}.|Where is {e} kept?/How long is {e} kept?/Where is a copy of {e}?
rule|{E} covers {liquid} damage up to {price}./Up to {price} is covered by {e}.|What does {e} cover?/Up to what sum does {e} cover damage?/How much is covered by {e}?
rule|{Person} spoke against {e} on {day}./{E} was criticised by {person} and the {roles}.|Who spoke against {e}?/By whom was {e} criticised?/Who criticised {e}?
rule|{Person} is responsible for {e}./{E} is led by {person}./{Person} is in charge of {e}.|Who is responsible for {e}?/Who leads {e}?/Who is in charge of {e}?
"""
ROWS = tuple(tuple(row.split("|")) for row in ATTRIBUTES.strip().splitlines())
KINDS = ("thing", "org", "person", "rule", "place", "dish")
_SUFFIXES = "Ltd Group Works Bank Books Foods Motors Lines Press Energy Systems Brothers Software Textiles".split()
_BUILDINGS = """kitchen cellar attic garage office hall library workshop laboratory warehouse lobby basement
archive yard studio canteen""".split()
_REASONS = """heavy snow|a strike|a power failure|a lack of money|bad weather|a broken pump|a missing permit|a fire|high costs
|a late delivery|illness|a software error|a flood|a complaint by the neighbours|a dispute with the owner""".replace(
    "\n", ""
)
_VALUES: dict[str, Callable[[Random], str]] = {
    "n": lambda r: str(r.choice((r.randint(2, 60), r.randint(2, 900), r.randint(2, 20)))),
    "m": lambda r: str(r.choice((r.randint(2, 60), round(r.uniform(1, 30), 1)))),
    "mass": lambda r: r.choice(("kilograms", "grams", "tonnes", "kg", "g", "pounds")),
    "time": lambda r: r.choice(("hours", "days", "weeks", "months", "years", "minutes")),
    "length": lambda r: r.choice(("metres", "centimetres", "cm", "m", "millimetres", "feet")),
    "price": lambda r: _price(r),
    "material": lambda r: r.choice("steel oak glass plastic leather copper brass wool cotton clay paper soap".split()),
    "place": lambda r: r.choice(lex.PLACES) if r.random() < 0.7 else lex.invent_name(r),
    "person": lambda r: person(r),
    "year": lambda r: str(r.randint(1650, 2026)),
    "colour": lambda r: r.choice("red green blue yellow black white grey brown silver orange purple pink".split()),
    "liquid": lambda r: r.choice("water oil milk petrol wine juice".split()),
    "code": lambda r: "".join(r.choice("ABCDEFHKMPRTX") for _ in range(2)) + f"-{r.randint(100, 9999)}",
    "adj": lambda r: r.choice(lex.ADJECTIVES),
    "building": lambda r: r.choice(_BUILDINGS),
    "org": lambda r: organisation(r),
    "role": lambda r: r.choice(lex.PEOPLE),
    "roles": lambda r: lex.plural(r.choice(lex.PEOPLE)),
    "arole": lambda r: lex.article(r.choice(lex.PEOPLE)),
    "email": lambda r: (
        f"{lex.invent_name(r).lower()}@{lex.invent_name(r).lower()}.{r.choice(('com', 'org', 'example', 'de'))}"
    ),
    "clock": lambda r: f"{r.randint(6, 20)}:{r.choice(('00', '15', '30', '45'))}",
    "day": lambda r: r.choice(lex.DAYS),
    "month": lambda r: r.choice(lex.MONTHS),
    "date": lambda r: _date(r),
    "phone": lambda r: f"{r.randint(10, 999)}-{r.randint(100, 9999)}-{r.randint(10, 999)}",
    "animal": lambda r: lex.plural(r.choice("dog cat horse goat rabbit hen".split())),
    "subject": lambda r: r.choice("chemistry law history music physics medicine biology economics art geology".split()),
    "tongue": lambda r: r.choice("French German Spanish Chinese Polish Arabic Italian Dutch Greek Hindi".split()),
    "award": lambda r: lex.invent_name(r),
    "food": lambda r: r.choice("soup rice bread cheese salad fish apples cake noodles beans".split()),
    "reason": lambda r: r.choice(_REASONS.split("|")),
}


def _price(rng: Random) -> str:
    """Return an amount of money."""
    amount = rng.choice(
        (
            str(rng.randint(3, 99)),
            f"{rng.randint(1, 99)}.{rng.randint(10, 99)}",
            f"{rng.randint(1, 90)},{rng.randint(0, 9)}00",
        )
    )
    return rng.choice(
        (f"${amount}", f"€{amount}", f"{amount} euros", f"{amount} dollars", f"{amount} EUR", f"£{amount}")
    )


def _date(rng: Random) -> str:
    """Return a date in one of the usual forms."""
    day, month, year = rng.randint(1, 28), rng.choice(lex.MONTHS), rng.randint(1900, 2026)
    return rng.choice((f"{day} {month} {year}", f"{month} {day}, {year}", f"{day} {month}", f"{month} {day}"))


def person(rng: Random) -> str:
    """Return a person's name."""
    first = rng.choice(lex.FIRST_NAMES) if rng.random() < 0.7 else lex.invent_name(rng)
    last = rng.choice(lex.LAST_NAMES) if rng.random() < 0.6 else lex.invent_name(rng)
    return rng.choice((f"{first} {last}", f"{first} {last}", first, f"Ms {last}", f"Mr {last}", f"Dr {last}"))


def organisation(rng: Random) -> str:
    """Return a company's name."""
    return f"{lex.invent_name(rng) if rng.random() < 0.7 else rng.choice(lex.LAST_NAMES)} {rng.choice(_SUFFIXES)}"


def entity(rng: Random, kind: str, noun: str = "") -> str:
    """Return a subject of `kind`, with its article."""
    if kind == "person":
        return person(rng)
    if kind == "place":
        sort = rng.choice("village island castle valley harbour monastery fort spring".split())
        return rng.choice((lex.invent_name(rng), lex.invent_name(rng), f"the {sort} of {lex.invent_name(rng)}"))
    if kind == "dish":
        sort = rng.choice("cake soup bread pie salad stew pudding sauce pancake omelette casserole".split())
        return (
            f"the {rng.choice((lex.invent_name(rng), rng.choice(lex.THINGS[-60:]), rng.choice(lex.ADJECTIVES)))} {sort}"
        )
    if kind == "org":
        return (
            organisation(rng) if rng.random() < 0.6 else f"the {lex.invent_name(rng)} {noun or rng.choice(lex.THINGS)}"
        )
    noun = noun or rng.choice(lex.THINGS if kind == "thing" else lex.ABSTRACT)
    mark = rng.choice((lex.invent_name(rng), rng.choice(lex.ADJECTIVES), rng.choice(lex.THINGS), ""))
    return f"the {mark} {noun}" if mark and mark != noun else f"the {noun}"


def _capital(text: str) -> str:
    """Return `text` with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def fill(template: str, values: dict[str, str], rng: Random) -> str:
    """Fill the slots of `template`, drawing and remembering what `values` does not hold yet."""

    def value(match: re.Match[str]) -> str:
        slot = match[1]
        key = slot[0].lower() + slot[1:]
        if key not in values:
            values[key] = _VALUES[key.rstrip("2")](rng)
        return _capital(values[key]) if slot[0].isupper() else values[key]

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
    for _ in range(8):  # a question that asks for a slot must find that slot in the statement
        statement, question = rng.choice(options), rng.choice(asked)
        if _fits(statement, question):
            break
    else:
        statement, question = options[0], asked[0]
    sentence = fill(statement, values, rng)
    return Fact(_capital(sentence), _capital(fill(question, values, rng)), f"{values['e']}|{n}")


def _fits(statement: str, question: str) -> bool:
    """Return whether `statement` holds what `question` asks for."""
    slots = set(re.findall(r"\{(\w+)\}", question.replace("{E}", ""))) - {"e"}
    if not slots <= {s[0].lower() + s[1:] for s in re.findall(r"\{(\w+)\}", statement)}:
        return False
    wants = {
        "Who": ("erson", "role", "org"),
        "When": ("year", "date", "month", "clock", "day", "week"),
        "Where": ("place", "building", "liquid", "dry"),
    }
    for word, kinds in wants.items():
        if question.startswith(word) and not any(k in statement for k in kinds):
            return False
    year = question.startswith(("In which year", "How old")) and "year" not in statement
    button = "button" in question and "button" not in statement
    often = question.startswith("How often") and "every" not in statement
    warm = question.startswith("At what temp") and "degrees" not in statement
    paid = "paid" in question and "price" not in statement and "{date}" not in statement
    return not (year or button or often or warm or paid)


def event(rng: Random, *, verb: str = "", subject: str = "", thing: str = "") -> Fact:
    """Return a sentence with subject, verb and object, and a question about one of its parts."""
    verb = verb or rng.choice(lex.ALL_VERBS)
    past, participle = lex.VERB_FORMS[verb]
    role = rng.choice(lex.PEOPLE)
    subject = subject or rng.choice(
        (person(rng), f"the {role}", f"the {rng.choice(lex.ADJECTIVES)} {role}", organisation(rng))
    )
    noun = rng.choice(lex.THINGS + lex.ABSTRACT)
    thing = thing or rng.choice(
        (
            f"the {rng.choice(lex.ADJECTIVES)} {noun}",
            f"the {noun}",
            f"the {lex.plural(noun)}",
            f"the {lex.invent_name(rng)} {noun}",
        )
    )
    many = thing.split()[-1].endswith("s") and not thing.split()[-1].endswith("ss")
    was, is_ = ("were", "are") if many else ("was", "is")
    when = rng.choice(
        (
            f"in {rng.choice(lex.MONTHS)} {rng.randint(1950, 2026)}",
            f"on {rng.choice(lex.DAYS)}",
            f"in {rng.randint(1700, 2026)}",
            f"on {_date(rng)}",
            f"at {_VALUES['clock'](rng)}",
        )
    )
    where = rng.choice(
        (f"in {_VALUES['place'](rng)}", f"in the {rng.choice(_BUILDINGS)}", f"near {_VALUES['place'](rng)}")
    )
    often = f"every {rng.choice((rng.choice(lex.DAYS), f'{rng.randint(2, 30)} days', f'{rng.randint(2, 12)} months', 'morning', 'week'))}"
    why = f"because of {rng.choice(_REASONS.split('|'))}"
    third, base = lex.third_person(verb), verb
    forms = [
        (f"{subject} {past} {thing} {when}.", [f"Who {past} {thing}?", f"When did {subject} {base} {thing}?", f"What did {subject} {base}?", f"When was {thing} {participle}?"]),
        (f"{thing} {was} {participle} by {subject} {when}.", [f"Who {past} {thing}?", f"When {was} {thing} {participle}?", f"By whom {was} {thing} {participle}?", f"Who {was} {thing} {participle} by?"]),
        (f"{thing} {was} {participle} {where}.", [f"Where {was} {thing} {participle}?", f"In which place {was} {thing} {participle}?"]),
        (f"{when}, {subject} {past} {thing} {where}.", [f"Where did {subject} {base} {thing}?", f"What happened to {thing}?", f"Who {past} {thing}?", f"What did {subject} {base} {where}?"]),
        (f"{subject} {third} {thing} {often}.", [f"How often does {subject} {base} {thing}?", f"Who {third} {thing}?", f"What does {subject} {base} {often}?"]),
        (f"{thing} must be {participle} {often}.", [f"How often must {thing} be {participle}?", f"When must {thing} be {participle}?", f"How often should I {base} {thing}?"]),
        (f"{thing} {is_} {participle} by {subject}.", [f"Who {third} {thing}?", f"By whom {is_} {thing} {participle}?", f"Who is responsible for {lex.gerund(verb)} {thing}?"]),
        (f"{thing} could not be {participle} {why}.", [f"Why could {thing} not be {participle}?", f"What was the reason that {thing} could not be {participle}?"]),
        (f"{subject} {past} {thing} {why}.", [f"Why did {subject} {base} {thing}?", f"What did {subject} {base}?", f"Why {was} {thing} {participle}?"]),
        (f"{subject} wanted to {base} {thing} {where}.", [f"What did {subject} want to {base}?", f"Who wanted to {base} {thing}?", f"Where did {subject} want to {base} {thing}?"]),
        (f"{subject} may {base} {thing} without permission.", [f"Who may {base} {thing}?", f"What may {subject} {base}?"]),
        (f"{lex.gerund(verb)} {thing} takes {rng.randint(2, 90)} {_VALUES['time'](rng)}.", [f"How long does {lex.gerund(verb)} {thing} take?", f"How long does it take to {base} {thing}?"]),
        (f"to {base} {thing}, {rng.choice(('press', 'turn', 'push', 'open', 'use'))} the {rng.choice(lex.ADJECTIVES)} {rng.choice(('button', 'switch', 'lever', 'key', 'lid'))}.", [f"How do I {base} {thing}?", f"How can {thing} be {participle}?", f"What do I need to {base} {thing}?"]),
    ]  # fmt: skip
    sentence, questions = rng.choice(forms)
    question = rng.choice(questions)
    if rng.random() < 0.25:
        words = thing.split()
        if len(words) == 3:
            question = question.replace(thing, f"the {words[2]}")
    return Fact(_capital(sentence), _capital(question), f"{verb}|{thing}|{subject}")


def property_of(rng: Random, *, about: str = "", noun: str = "") -> Fact:
    """Return a sentence on any noun of any thing, so that both must be matched to find it."""
    e = about or entity(rng, rng.choice(KINDS))
    noun = noun or rng.choice(lex.THINGS + lex.ABSTRACT)
    verb = rng.choice(lex.ALL_VERBS)
    past, participle = lex.VERB_FORMS[verb]
    nouns = lex.plural(noun)
    value = fill(
        rng.choice(
            (
                "{price}",
                "{n} {mass}",
                "{n} {time}",
                "{person}",
                "{place}",
                "{date}",
                "{code}",
                "{n}",
                "{colour}",
                "{email}",
            )
        ),
        {},
        rng,
    )
    who, year, place, n, day = (
        person(rng),
        _VALUES["year"](rng),
        _VALUES["place"](rng),
        rng.randint(2, 999),
        rng.choice(lex.DAYS),
    )
    adjective, why = rng.choice(lex.ADJECTIVES), rng.choice(_REASONS.split("|"))
    forms = [
        (f"the {noun} of {e} is {value}.", [f"What is the {noun} of {e}?", f"Which {noun} does {e} have?"]),
        (f"{e} has {lex.article(adjective)} {noun}.", [f"What {noun} does {e} have?", f"What kind of {noun} does {e} have?"]),
        (f"the {noun} of {e} was {participle} by {who}.", [f"Who {past} the {noun} of {e}?", f"By whom was the {noun} of {e} {participle}?"]),
        (f"the {noun} of {e} was {participle} in {year}.", [f"When was the {noun} of {e} {participle}?", f"In which year was the {noun} of {e} {participle}?"]),
        (f"{who} {past} {lex.article(noun)} for {e} in {place}.", [f"Who {past} {lex.article(noun)} for {e}?", f"Where did {who} {verb} {lex.article(noun)} for {e}?"]),
        (f"{n} {nouns} of {e} were {participle}.", [f"How many {nouns} of {e} were {participle}?", f"How many {nouns} were {participle}?"]),
        (f"{e} {lex.third_person(verb)} {n} {nouns} every {day}.", [f"How many {nouns} does {e} {verb} every {day}?", f"What does {e} {verb} every {day}?"]),
        (f"the {noun} for {e} is kept in the {rng.choice(_BUILDINGS)}.", [f"Where is the {noun} for {e} kept?", f"Where is the {noun} for {e}?"]),
        (f"{e} lost its {noun} because of {why}.", [f"Why did {e} lose its {noun}?", f"What did {e} lose?"]),
        (f"without {lex.article(noun)}, {e} cannot be {participle}.", [f"What happens to {e} without {lex.article(noun)}?", f"What is needed before {e} can be {participle}?"]),
    ]  # fmt: skip
    sentence, questions = rng.choice(forms)
    return Fact(_capital(sentence), _capital(rng.choice(questions)), f"{e}|{noun}")
