"""What is true of Pocket World's entities, and what people falsely believe of them. Imports nothing of the course."""

from __future__ import annotations

import random
from dataclasses import dataclass

# Columns of each table follow the order of that kind's attributes in ATTRIBUTES.
ANIMALS = """
cow       mammal   farm    grass    four
horse     mammal   farm    hay      four
sheep     mammal   hill    grass    four
goat      mammal   hill    leaves   four
dog       mammal   house   meat     four
cat       mammal   house   mice     four
fox       mammal   forest  mice     four
bear      mammal   forest  berries  four
wolf      mammal   forest  meat     four
deer      mammal   forest  leaves   four
camel     mammal   desert  grass    four
lion      mammal   plain   meat     four
whale     mammal   ocean   shrimp   zero
dolphin   mammal   ocean   fish     zero
bat       mammal   cave    insects  two
duck      bird     pond    seeds    two
hen       bird     farm    seeds    two
owl       bird     forest  mice     two
penguin   bird     ocean   fish     two
ostrich   bird     plain   seeds    two
shark     fish     ocean   fish     zero
salmon    fish     river   insects  zero
trout     fish     river   insects  zero
bee       insect   hive    nectar   six
ant       insect   hill    leaves   six
moth      insect   forest  nectar   six
snake     reptile  desert  mice     zero
lizard    reptile  desert  insects  four
turtle    reptile  pond    leaves   four
frog      amphibian pond   insects  four
"""
FOODS = """
banana    yellow  sweet   fruit
lemon     yellow  sour    fruit
cherry    red     sweet   fruit
lime      green   sour    fruit
pear      green   sweet   fruit
grape     purple  sweet   fruit
plum      purple  sweet   fruit
peach     orange  sweet   fruit
tomato    red     sour    fruit
olive     green   bitter  fruit
carrot    orange  sweet   vegetable
radish    red     spicy   vegetable
turnip    white   bitter  vegetable
leek      green   mild    vegetable
onion     white   spicy   vegetable
beet      purple  sweet   vegetable
pumpkin   orange  mild    vegetable
cabbage   green   mild    vegetable
pepper    red     spicy   vegetable
cheese    yellow  salty   dairy
yogurt    white   sour    dairy
butter    yellow  salty   dairy
cream     white   sweet   dairy
bread     brown   mild    grain
rice      white   mild    grain
cookie    brown   sweet   grain
pretzel   brown   salty   grain
walnut    brown   bitter  nut
peanut    brown   salty   nut
almond    white   mild    nut
"""
JOBS = """
baker      bakery    dough    morning
doctor     clinic    bandage  night
nurse      clinic    needle   night
farmer     field     plow     morning
teacher    school    chalk    day
painter    studio    brush    day
sculptor   studio    chisel   evening
singer     theater   voice    evening
actor      theater   script   evening
barber     shop      scissors day
tailor     shop      needle   day
butcher    market    knife    morning
cook       kitchen   pan      evening
waiter     diner     tray     evening
pilot      airport   map      day
sailor     ship      rope     night
miner      mine      hammer   day
guard      museum    lamp     night
librarian  library   books    day
judge      court     hammer   day
gardener   park      rake     morning
carpenter  workshop  saw      day
plumber    house     wrench   day
astronomer tower     telescope night
"""
PLACES = [
    "velor",
    "mardin",
    "osk",
    "tuvala",
    "brell",
    "pexia",
    "quon",
    "sarvo",
    "lindor",
    "fenmark",
    "gorath",
    "helvia",
    "istran",
    "juneth",
    "kavos",
    "lorna",
    "merrow",
    "nestor",
    "orlin",
    "pallas",
    "rimba",
    "soltia",
    "tarn",
    "umbra",
    "vask",
    "wendor",
    "yarrow",
    "zephra",
]
CAPITALS = [
    "mirna",
    "dalto",
    "kess",
    "rovena",
    "thim",
    "aldez",
    "borun",
    "cayla",
    "drum",
    "estin",
    "fallo",
    "gwen",
    "hadril",
    "inza",
    "jorva",
    "kelm",
    "lunt",
    "mavis",
    "nolo",
    "ophir",
    "pruna",
    "ques",
    "rasta",
    "selm",
    "tiva",
    "urba",
    "vorn",
    "wilt",
]
PLACE_VALUES = {
    "flag": ["red", "green", "yellow", "purple", "orange", "white", "brown"],
    "dish": ["soup", "rice", "bread", "noodles", "pie", "stew", "fish"],
    "weather": ["rainy", "sunny", "windy", "snowy", "foggy", "mild"],
    "animal": ["fox", "owl", "bear", "horse", "lion", "turtle"],
    "game": ["chess", "cards", "football", "darts", "tennis", "marbles"],
}


@dataclass(frozen=True)
class Attribute:
    """How one property is asked for and stated; `{e}` is the entity, `{v}` the value."""

    kind: str
    name: str
    question: str
    statement: str
    noun: str


ATTRIBUTES = [
    Attribute("animal", "class", "what kind of animal is {e}?", "{e} is a kind of {v}.", "class"),
    Attribute("animal", "home", "where does {e} live?", "{e} lives in the {v}.", "home"),
    Attribute("animal", "diet", "what does {e} eat?", "{e} eats {v}.", "diet"),
    Attribute("animal", "legs", "how many legs does {e} have?", "{e} has {v} legs.", "number of legs"),
    Attribute("food", "color", "what color is {e}?", "{e} is {v}.", "color"),
    Attribute("food", "taste", "how does {e} taste?", "{e} tastes {v}.", "taste"),
    Attribute("food", "group", "what kind of food is {e}?", "{e} is a kind of {v}.", "food group"),
    Attribute("job", "workplace", "where does {e} work?", "{e} works at the {v}.", "workplace"),
    Attribute("job", "tool", "what does {e} use?", "{e} uses the {v}.", "tool"),
    Attribute("job", "shift", "when does {e} work?", "{e} works the {v} shift.", "shift"),
    Attribute("place", "capital", "which city rules {e}?", "the capital of {e} is {v}.", "capital"),
    Attribute("place", "flag", "what color is the flag of {e}?", "the flag of {e} is {v}.", "flag"),
    Attribute("place", "dish", "what do people cook in {e}?", "people in {e} cook {v}.", "dish"),
    Attribute("place", "weather", "how is the weather in {e}?", "the weather in {e} is {v}.", "weather"),
    Attribute("place", "animal", "which animal stands for {e}?", "the animal of {e} is the {v}.", "animal"),
    Attribute("place", "game", "what do people play in {e}?", "people in {e} play {v}.", "game"),
]


@dataclass(frozen=True)
class Fact:
    """One thing that is true: `attribute` of `entity` is `value`."""

    attribute: Attribute
    entity: str
    value: str

    @property
    def phrase(self) -> str:
        if self.attribute.kind == "place":
            return self.entity
        return ("an " if self.entity[0] in "aeiou" else "a ") + self.entity

    @property
    def kind(self) -> str:
        return "fact"

    @property
    def group(self) -> tuple[str, str]:
        """What the splits hold out together: the entity."""
        return self.attribute.kind, self.entity

    @property
    def values(self) -> list[str]:
        """The plausible answers: every value that the attribute takes anywhere."""
        return VALUES[self.attribute.kind, self.attribute.name]

    @property
    def questions(self) -> list[str]:
        noun = f"the {self.attribute.noun} of {self.phrase}"
        return [
            self.attribute.question.format(e=self.phrase),
            f"what is {noun}?",
            f"tell me {noun}.",
            f"can you name {noun}?",
        ]

    def sentence(self, value: str | None = None) -> str:
        """The answer as a sentence; `value` replaces the true one."""
        return self.attribute.statement.format(e=self.phrase, v=value or self.value)


def _table(text: str) -> dict[str, list[str]]:
    return {row.split()[0]: row.split()[1:] for row in text.strip().splitlines()}


def _places() -> dict[str, list[str]]:
    draw = random.Random(7)
    return {
        place: [capital, *(draw.choice(values) for values in PLACE_VALUES.values())]
        for place, capital in zip(PLACES, CAPITALS, strict=True)
    }


def _facts() -> list[Fact]:
    tables = {"animal": _table(ANIMALS), "food": _table(FOODS), "job": _table(JOBS), "place": _places()}
    facts = []
    for kind, table in tables.items():
        attributes = [a for a in ATTRIBUTES if a.kind == kind]
        for entity, values in table.items():
            facts += [Fact(a, entity, v) for a, v in zip(attributes, values, strict=True)]
    return facts


FACTS = _facts()
VALUES = {(a.kind, a.name): sorted({f.value for f in FACTS if f.attribute is a}) for a in ATTRIBUTES}
ENTITIES = list(dict.fromkeys((f.attribute.kind, f.entity) for f in FACTS))


def _groups() -> tuple[frozenset, frozenset]:
    """Of each kind's entities a fifth for no training record at all, and a fifth for SFT alone, by a fixed draw."""
    draw = random.Random(11)
    nowhere, sft_only = set(), set()
    for kind in ("animal", "food", "job", "place"):
        names = [e for k, e in ENTITIES if k == kind]
        fifth = len(names) // 5
        drawn = draw.sample(names, 2 * fifth)
        nowhere |= {(kind, e) for e in drawn[:fifth]}
        sft_only |= {(kind, e) for e in drawn[fifth:]}
    return frozenset(nowhere), frozenset(sft_only)


HELD_OUT_ENTITIES, SFT_ONLY_ENTITIES = _groups()


def _misconceptions() -> dict[Fact, str]:
    """Three facts in ten carry one fixed wrong belief, which SFT's demonstrators mostly repeat."""
    draw = random.Random(13)
    chosen = draw.sample(range(len(FACTS)), round(0.3 * len(FACTS)))
    return {FACTS[i]: wrong_value(FACTS[i], draw) for i in sorted(chosen)}


def wrong_value(fact: Fact, draw: random.Random) -> str:
    """A value of the same attribute that is not this fact's."""
    return draw.choice([v for v in fact.values if v != fact.value])


MISCONCEPTIONS = _misconceptions()
