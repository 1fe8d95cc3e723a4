"""Two sets of documents and questions that the demo checkpoint never saw: file name -> text, or a PDF's pages."""

from __future__ import annotations

OFFICE_FILES: dict[str, str | list[list[str]]] = {
    "club_rules.md": """# Riverside Rowing Club

## Membership
The annual fee is 240 pounds for adults and 90 pounds for students.
New members must pass a swimming test before they may use a boat.

## Opening hours
The boathouse opens at six in the morning from April to October.
In winter the boathouse is open only on weekends.

## Contacts
The club president is Harriet Lindqvist. The treasurer is Tomas Okafor.

- Lost keys cost 35 pounds.
- Guests may row twice a year for free.
""",
    "coffee_machine.txt": """Aurora X200 coffee machine - quick guide

The water tank holds 1.8 litres and must be rinsed every day.
Descale the machine once every two months with citric acid.
The guarantee covers parts and labour for three years from the date of purchase.
If the red lamp blinks, the bean container is empty.
Spare parts can be ordered at parts@aurora-coffee.example or by phone at +44 20 5550 1188.
Never put the milk jug into the dishwasher.
""",
    "meridian.pdf": [
        [
            "Annual report 2025 of Meridian Shipping",
            "Revenue rose by 12 percent to 48 million euros.",
            "The company bought two new ferries, the Albatross and the Kestrel.",
            "Chief executive Ingrid Solheim will retire in June 2026.",
        ],
        [
            "Environment and staff",
            "Fuel use per voyage fell by nine percent.",
            "The company employs 612 people in five ports.",
            "The next general meeting takes place in Bergen on 14 May 2026.",
        ],
    ],
    "员工手册.txt": """星河科技公司员工手册

员工每年享有十五天带薪年假。
上班时间是早上九点到下午六点，午休一小时。
报销申请必须在三十天内提交给财务部。
公司总部位于杭州市滨江区，由李明创办于2012年。
病假需要提供医院开具的证明。
每周五下午员工可以在家办公。
""",
}
OFFICE_QUESTIONS: list[tuple[str, str | None, str]] = [
    ("How much water does the tank hold?", "coffee_machine.txt", "1.8"),
    ("How often should I descale the coffee machine?", "coffee_machine.txt", "two months"),
    ("How long is the guarantee?", "coffee_machine.txt", "three years"),
    ("What does it mean when the red lamp blinks?", "coffee_machine.txt", "empty"),
    ("Can the milk jug go into the dishwasher?", "coffee_machine.txt", "Never"),
    ("Where can I order spare parts?", "coffee_machine.txt", "parts@"),
    ("What is the annual fee for students?", "club_rules.md", "90"),
    ("Who is the president of the rowing club?", "club_rules.md", "Harriet"),
    ("When does the boathouse open in summer?", "club_rules.md", "six"),
    ("What do new members have to pass?", "club_rules.md", "swimming"),
    ("How much do lost keys cost?", "club_rules.md", "35"),
    ("By how much did revenue rise?", "meridian.pdf", "12"),
    ("Who will retire in June 2026?", "meridian.pdf", "Solheim"),
    ("Which ferries did the company buy?", "meridian.pdf", "Kestrel"),
    ("How many people does Meridian employ?", "meridian.pdf", "612"),
    ("Where does the next general meeting take place?", "meridian.pdf", "Bergen"),
    ("员工每年有多少天年假？", "员工手册.txt", "十五"),
    ("公司总部在哪里？", "员工手册.txt", "杭州"),
    ("报销申请要在多少天内提交？", "员工手册.txt", "三十"),
    ("上班时间是几点？", "员工手册.txt", "九点"),
    ("请病假需要什么证明？", "员工手册.txt", "医院"),
    ("What is the capital of Peru?", None, ""),
    ("Who won the football championship?", None, ""),
    ("How do I bake sourdough bread?", None, ""),
    ("明天的天气怎么样？", None, ""),
    ("What colour are the boats?", None, ""),
]
"""Question, the file that answers it (None: none does), and what the answer must contain."""

TOWN_FILES: dict[str, str | list[list[str]]] = {
    "festival.txt": """Harbour Lights Music Festival - information for visitors

The festival takes place from 3 to 5 July on the old airfield near Westbrook.
A weekend ticket costs 85 euros; children under twelve enter free of charge.
The camping area opens on Thursday at noon and closes on Monday morning.
Glass bottles and drones are forbidden on the whole site.
The shuttle bus leaves the central station every twenty minutes.
First aid is next to the main stage. The emergency number is 555-0142.
""",
    "lighthouse.pdf": [
        [
            "The lighthouse of Cape Morrow",
            "The lighthouse was built in 1871 by the engineer Edwin Carrow.",
            "It is 46 metres high and has 212 steps.",
            "The light can be seen from a distance of 38 kilometres.",
        ],
        [
            "Visits and museum",
            "The museum is open from Tuesday to Sunday, ten to five.",
            "Guided tours in English start at eleven and cost four pounds.",
            "Dogs are not allowed inside the tower.",
        ],
    ],
    "server_notes.md": """# Backup server

The backup server is called Walrus and stands in room 214.
Backups run every night at 2:30 and are kept for ninety days.

## Access

Only Priya Nair and Jonas Weber have the administrator password.
Requests for new accounts are sent to the help desk.

## Hardware

Walrus has 64 GB of memory and twelve hard disks.
The disks were replaced in March 2024.
""",
    "图书馆.txt": """城东图书馆使用须知

图书馆周二至周日开放，周一闭馆。
每位读者最多可以借十本书，借期为四周。
逾期每天罚款两角钱。
儿童阅览室在二楼，由赵敏老师管理。
自习室的座位需要提前一天在网上预约。
图书馆里不能吃东西，但可以带水。
""",
}
TOWN_QUESTIONS: list[tuple[str, str | None, str]] = [
    ("When does the festival take place?", "festival.txt", "July"),
    ("How much does a weekend ticket cost?", "festival.txt", "85"),
    ("When does the camping area open?", "festival.txt", "Thursday"),
    ("What is forbidden on the site?", "festival.txt", "Glass"),
    ("How often does the shuttle bus leave?", "festival.txt", "twenty"),
    ("What is the emergency number?", "festival.txt", "0142"),
    ("What is the name of the backup server?", "server_notes.md", "Walrus"),
    ("How long are backups kept?", "server_notes.md", "ninety"),
    ("Who has the administrator password?", "server_notes.md", "Priya"),
    ("How much memory does Walrus have?", "server_notes.md", "64"),
    ("When were the disks replaced?", "server_notes.md", "2024"),
    ("Who built the lighthouse?", "lighthouse.pdf", "Carrow"),
    ("How high is the lighthouse?", "lighthouse.pdf", "46"),
    ("How many steps does the lighthouse have?", "lighthouse.pdf", "212"),
    ("How much do guided tours cost?", "lighthouse.pdf", "four"),
    ("Are dogs allowed inside the tower?", "lighthouse.pdf", "not"),
    ("When is the museum open?", "lighthouse.pdf", "Tuesday"),
    ("图书馆哪天闭馆？", "图书馆.txt", "周一"),
    ("最多可以借几本书？", "图书馆.txt", "十本"),
    ("逾期怎么罚款？", "图书馆.txt", "两角"),
    ("儿童阅览室在几楼？", "图书馆.txt", "二楼"),
    ("谁管理儿童阅览室？", "图书馆.txt", "赵敏"),
    ("自习室怎么预约？", "图书馆.txt", "网上"),
    ("What is the population of Brazil?", None, ""),
    ("Who wrote the novel Moby Dick?", None, ""),
    ("How do I repair a bicycle tyre?", None, ""),
    ("谁是法国总统？", None, ""),
    ("What salary does Priya Nair earn?", None, ""),
]
"""Question, the file that answers it (None: none does), and what the answer must contain."""
