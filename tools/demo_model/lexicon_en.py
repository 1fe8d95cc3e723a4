# ruff: noqa: E501 (tables)
"""English words for the generated text, by kind, and the inflections that questions and passages need."""

from __future__ import annotations

from random import Random

PEOPLE = """manager engineer nurse teacher doctor driver baker farmer lawyer clerk tenant landlord buyer seller editor
author captain pilot sailor painter sculptor singer composer mayor governor minister judge inspector mechanic plumber
electrician carpenter gardener librarian accountant secretary director founder owner partner supplier customer client
visitor guest student professor chemist biologist astronomer architect surveyor builder operator technician guard
janitor cook waiter courier trainer coach referee player winner champion witness officer sergeant general king queen
prince duke bishop monk priest merchant miller smith weaver tailor jeweller potter printer publisher reporter
photographer designer programmer tester analyst auditor consultant assistant trainee volunteer donor patient dentist
surgeon pharmacist keeper ranger hunter fisherman shepherd explorer inventor scientist historian translator
interpreter guide agent broker banker investor lender borrower insurer treasurer chairman spokesman ambassador
contractor dispatcher foreman welder roofer glazier mason caretaker neighbour cousin uncle aunt brother sister
grandfather grandmother colleague supervisor instructor curator violinist pianist drummer dancer actor poet
novelist critic beekeeper brewer butcher florist barber optician veterinarian midwife paramedic firefighter
apprentice intern receptionist cashier porter steward navigator conductor stoker signalman postman milkman""".split()

THINGS = """lamp pump drill printer camera kettle toaster heater fridge oven stove boiler furnace radiator fan filter
battery charger cable adapter switch sensor antenna router modem laptop tablet phone keyboard monitor speaker microphone
headset projector scanner clock watch alarm lock door window gate fence wall roof floor ceiling stair lift ladder
bridge tunnel road path canal harbour pier lighthouse tower castle church temple museum library school hospital
station airport hotel restaurant bakery factory warehouse mill farm barn stable garden orchard vineyard greenhouse
forest lake river island valley mountain glacier desert beach bay car truck bus tram train locomotive wagon bicycle
scooter boat ship ferry yacht submarine plane helicopter balloon rocket satellite telescope microscope
engine motor turbine generator compressor valve pipe tank hose nozzle bearing gear belt chain brake clutch wheel tyre
saw hammer chisel plane wrench screwdriver nail screw bolt nut rope net tent backpack bottle cup plate bowl pan pot
knife fork spoon table chair desk bench shelf cupboard drawer bed mattress blanket pillow curtain carpet mirror
painting statue vase violin piano guitar flute drum organ book novel letter map diary ticket passport stamp coin medal
ring necklace bracelet dress coat jacket shirt shoe boot glove hat scarf helmet umbrella bag suitcase box crate barrel
basket parcel package pallet container sofa vacuum mixer blender freezer dishwasher washer dryer mower trimmer
sprayer tractor plough crane excavator bulldozer forklift conveyor robot drone thermostat thermometer barometer
compass scale meter gauge ruler calculator server database archive folder file backup password licence certificate
invoice receipt contract lease policy report survey budget plan schedule agenda protocol manual brochure catalogue
newsletter poster sign label badge key card token toy doll puzzle kite ball racket bat skate sled saddle
bread cheese butter honey soup cake pie sausage ham salad sauce jam tea coffee wine beer cider juice milk water oil
vinegar salt sugar flour rice barley wheat potato carrot onion cabbage tomato pepper apple pear plum cherry grape
lemon orange walnut almond mushroom fish salmon herring chicken goose sheep goat cow horse donkey dog cat rabbit bee
owl eagle falcon swan heron fox wolf bear deer seal whale""".split()

ABSTRACT = """fee price cost discount deposit rent salary bonus pension tax fine penalty refund payment loan grant
donation budget profit revenue turnover share dividend warranty guarantee insurance claim complaint appeal request
order delivery shipment return repair inspection maintenance service installation training course lesson lecture exam
meeting conference workshop interview holiday vacation shift overtime break deadline notice period term duration
distance length width height weight depth speed temperature pressure voltage power capacity volume size colour
material version release update upgrade feature setting option error warning fault failure leak noise smell damage
accident fire flood storm frost drought harvest exhibition concert festival ceremony parade race match tournament
season award prize record election vote treaty law rule regulation permit ban merger strike battle siege war
expedition voyage discovery invention patent experiment trial project programme campaign strategy audit review
opening closing entrance exit parking access emergency evacuation safety hygiene privacy security consent
cancellation renewal termination signature agreement clause annex exception committee council board department
branch office team crew club society union academy institute laboratory archive collection edition chapter
paragraph translation recipe dose symptom allergy treatment therapy vaccine diagnosis recovery diet""".split()

ADJECTIVES = """old new small large red green blue yellow black white grey brown silver golden wooden stone copper iron
steel glass plastic leather paper heavy light long short high low deep wide narrow thick thin round square flat steep
fast slow loud quiet bright dark warm cold hot dry wet clean dirty empty full open closed broken spare portable mobile
electric manual automatic digital wireless solar hydraulic northern southern eastern western upper lower inner outer
left right central main second third annual monthly weekly daily early late final first public private royal federal
local national foreign ancient medieval modern famous rare cheap expensive free special standard basic internal
external temporary permanent regular weekend summer winter spring autumn morning evening night junior senior chief
young retired wealthy blind brave clever strict former""".split()

VERBS = """repair inspect clean paint sell order deliver install replace remove test check measure record sign
approve reject cancel renew extend publish print translate design construct open close lock unlock clear store pack
ship return collect visit photograph document describe discover invent develop improve change adjust connect
disconnect charge switch start stop pause restart reset update upgrade download upload copy delete rename move
transfer invoice refund donate rent borrow finance insure protect guard attack destroy restore renovate
demolish rebuild expand join unite divide rule govern elect appoint nominate dismiss hire train teach examine treat
vaccinate cure rescue guide escort warn inform invite welcome interview question thank honour praise criticise ban
permit allow require demand request recommend suggest propose announce launch organise plan manage supervise operate
direct conduct perform compose record film plant water harvest pick grind bake boil roast fry smoke stir mix
pour fill empty drain heat cool freeze dry wash iron fold cut polish sharpen weld glue attach mount hang
label mark number count sort stack load unload weigh lift lower push pull carry drag tow park climb cross explore
map survey excavate analyse compare calculate estimate verify confirm audit review correct edit sponsor support
assist replace import export manufacture produce assemble mention name call use serve follow track monitor observe
watch study report present introduce display exhibit decorate furnish cover wrap seal paint""".split()

IRREGULAR = """write wrote written|build built built|buy bought bought|sell sold sold|find found found|make made made
|give gave given|take took taken|bring brought brought|keep kept kept|lose lost lost|steal stole stolen
|hide hid hidden|break broke broken|choose chose chosen|draw drew drawn|drive drove driven|fly flew flown
|lead led led|lend lent lent|send sent sent|pay paid paid|read read read|run ran run|see saw seen|set set set
|shut shut shut|sing sang sung|speak spoke spoken|teach taught taught|throw threw thrown|wear wore worn
|win won won|found founded founded|begin began begun|hold held held|leave left left|meet met met|catch caught caught
|feed fed fed|cut cut cut|put put put|grow grew grown|hit hit hit|tell told told|understand understood understood"""

FIRST_NAMES = """Anna Ben Clara David Emma Felix Grace Henry Irene James Karen Louis Maria Nadia Oscar Paula Quentin Rosa
Simon Tessa Ursula Victor Wanda Xavier Yvonne Zoe Alice Bruno Carla Dennis Ellen Frank Gloria Harold Ida Jonas Kate
Leon Martha Nils Olga Peter Rita Stefan Tina Ulrich Vera Walter Agnes Boris Cecile Diego Elena Fatima George Hannah
Ivan Julia Kofi Lena Marco Nora Omar Priya Ravi Sofia Tomas Amir Bella Chen Dora Emil Farid Gina Hugo Ines Jack
Lucy Mark Nina Otto Pablo Ruth Sam Tara Umar Viola Will Amelia Arthur Bridget Colin Edith Gavin Holly""".split()

LAST_NAMES = """Adler Baker Costa Dalton Evans Fischer Garcia Hansen Ivanov Jansen Keller Lopez Moreau Novak Olsen Petrov
Quinn Rossi Silva Tanaka Urban Vogel Weber Young Zeman Archer Bennett Carver Drummond Ellis Foster Graham Hughes Irving
Jordan Kowalski Larsen Mercer Nash Okafor Palmer Ramsey Sinclair Thorne Underwood Vance Walsh Yates Abbott Brandt
Castle Doyle Emery Farrow Griffin Holt Ingram Jarvis Knox Lambert Marsh Norton Osborne Pryce Reyes Stark Tate Varga
Whitfield Khan Singh Patel Mbeki Sato Kim Lee Wang Nguyen Cohen Haddad Rahman Duarte Lindberg Virtanen""".split()

PLACES = """London Paris Berlin Vienna Madrid Rome Lisbon Dublin Oslo Stockholm Helsinki Warsaw Prague Budapest Athens
Cairo Nairobi Lagos Tokyo Osaka Seoul Beijing Shanghai Delhi Mumbai Sydney Melbourne Toronto Montreal Boston Chicago
Denver Seattle Lima Bogota Santiago Geneva Zurich Munich Hamburg Cologne Bremen Leipzig Dresden Milan Turin Naples
Porto Seville Valencia Lyon Nantes Lille Ghent Antwerp Rotterdam Utrecht Aarhus Bergen Tampere Riga Vilnius Tallinn
Krakow Gdansk Brno Graz Linz Zagreb Split Sofia Varna Izmir Haifa Tunis Dakar Accra Cork Galway Leeds Bristol York
Oxford Cardiff Glasgow Perth Hobart Austin Portland Norway Iceland Canada Brazil Kenya India Japan Spain""".split()

FUNCTIONS = """Who What When Where Which Why How Does Did Is Are Was Were Can Do Has Have Will Whose who what when where
which why how does did is are was were can do has have had will would should must may might could not no yes the The a an
A An In On At By For From To With After Before Since If There This That These Those It its It's He She They We You I my
your our their his her him them us me and or but of in on at by for from to with about into over under between during
until since after before because than then so very more most less least only also each every all any some both many much
long often far old big tall wide heavy fast high deep cost costs weigh weighs last lasts begin begins end ends belong
located stand stands lie lies live lives work works contain contains need needs allowed made used called responsible
price year years day days week weeks month months hour hours minute minutes people number name date time place first
Please tell Tell me know say says according""".split()
MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
UNITS = """kilograms grams tonnes metres centimetres millimetres kilometres miles litres millilitres hours minutes seconds
days weeks months years degrees watts volts percent euros dollars pounds pages rooms seats people copies boxes bottles
steps points votes cases units items""".split()
_ONSETS = "b br c ch d dr f fl g gr h j k kl l m n p pr qu r s sh st t th tr v w z".split()
_VOWELS = "a e i o u a e i o ai ea ou".split()
_CODAS = "n r l s t m x nd rk ll ss ck th".split()


def invent_name(rng: Random, *, syllables: int = 0) -> str:
    """Return a made-up capitalised name such as "Brelith"."""
    count = syllables or rng.choice((2, 2, 3))
    body = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(count))
    return (body + (rng.choice(_CODAS) if rng.random() < 0.7 else "")).capitalize()


def _forms() -> dict[str, tuple[str, str]]:
    """Map each verb to its past and participle."""
    forms = {}
    for verb in VERBS:
        past = verb + "d" if verb.endswith("e") else verb[:-1] + "ied" if _y(verb) else verb + "ed"
        if verb in {"plan", "stop", "ban", "permit", "ship", "map", "stir", "wrap", "drag", "refer", "transfer"}:
            past = verb + verb[-1] + "ed"
        forms[verb] = (past, past)
    for row in IRREGULAR.replace("\n", "").split("|"):
        base, past, participle = row.split()
        forms[base] = (past, participle)
    forms["cut"] = ("cut", "cut")
    forms["pack"] = ("packed", "packed")
    return forms


def _y(word: str) -> bool:
    """Return whether `word` ends in a consonant and y."""
    return word.endswith("y") and word[-2] not in "aeiou"


VERB_FORMS = _forms()
ALL_VERBS = tuple(VERB_FORMS)


def third_person(verb: str) -> str:
    """Return the form after he, she or it."""
    return plural(verb)


def plural(noun: str) -> str:
    """Return the regular plural of `noun`."""
    irregular = {"knife": "knives", "shelf": "shelves", "wolf": "wolves", "sheep": "sheep", "fish": "fish"}
    irregular |= {"salmon": "salmon", "deer": "deer", "fisherman": "fishermen", "foreman": "foremen"}
    irregular |= {"chairman": "chairmen", "spokesman": "spokesmen", "postman": "postmen", "milkman": "milkmen"}
    irregular |= {"signalman": "signalmen", "child": "children", "goose": "geese", "leaf": "leaves"}
    if noun in irregular:
        return irregular[noun]
    if noun.endswith(("s", "x", "ch", "sh", "z")):
        return noun + "es"
    if _y(noun):
        return noun[:-1] + "ies"
    return noun + "s"


def gerund(verb: str) -> str:
    """Return the -ing form of `verb`."""
    if verb.endswith("e") and not verb.endswith("ee"):
        return verb[:-1] + "ing"
    past = VERB_FORMS.get(verb, (verb + "ed",))[0]
    if past.endswith(verb[-1] * 2 + "ed") or verb in {"cut", "put", "set", "shut", "hit", "run", "win", "begin"}:
        return verb + verb[-1] + "ing"
    return verb + "ing"


def article(word: str) -> str:
    """Return `word` with its indefinite article."""
    return ("an " if word[0] in "aeiouAEIOU" else "a ") + word
