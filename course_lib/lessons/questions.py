"""Lesson 18's questions to a real model.

`TRAINING` and `HELD_OUT` are of four kinds: facts, words and numbers, which have accepted answers, and advice, which
has none. `HELD_OUT` also asks for things at length, which nobody wants in a word. `STATEMENTS` are for the alignment
tax.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Question(NamedTuple):
    """A question, its kind, the answers that are accepted (none: any), and a terse answer as a person writes it."""

    kind: str
    text: str
    accepted: tuple[str, ...]
    terse: str = ""

    @property
    def prompt(self) -> list[dict]:
        return [{"role": "user", "content": self.text}]


def _known(kind: str, rows: Sequence[tuple[str, str]]) -> list[Question]:
    accepted = [(text, tuple(answers.split("/"))) for text, answers in rows]
    return [Question(kind, text, words, f"{words[0].capitalize()}.") for text, words in accepted]


def _open(kind: str, rows: Sequence[tuple[str, str]]) -> list[Question]:
    return [Question(kind, text, (), terse) for text, terse in rows]


TRAINING = [
    *_known("fact", [
        ("What is the capital of France?", "Paris"),
        ("What is the capital of Italy?", "Rome"),
        ("What colour is the sky on a clear day?", "blue"),
        ("Which planet is closest to the sun?", "Mercury"),
        ("What do bees make?", "honey"),
        ("Who wrote Romeo and Juliet?", "Shakespeare"),
        ("What gas do people need to breathe?", "oxygen"),
        ("Which animal says meow?", "cat/cats"),
        ("What is frozen water called?", "ice"),
        ("In which country are the pyramids of Giza?", "Egypt"),
    ]),
    *_known("word", [
        ("What is the opposite of hot?", "cold"),
        ("What is the opposite of big?", "small/little"),
        ("What is the opposite of day?", "night"),
        ("What is the plural of mouse?", "mice"),
        ("What is the plural of child?", "children"),
        ("What is the past tense of go?", "went"),
        ("What is the past tense of run?", "ran"),
        ("What is a young dog called?", "puppy/pup"),
        ("What do you call a person who bakes bread?", "baker"),
        ("What is the French word for hello?", "bonjour"),
    ]),
    *_known("number", [
        ("How many days are in a week?", "seven/7"),
        ("How many legs does a spider have?", "eight/8"),
        ("What is 2 plus 3?", "five/5"),
        ("What is 10 minus 4?", "six/6"),
        ("How many months are in a year?", "twelve/12"),
        ("How many hours are in a day?", "24/twenty-four"),
        ("How many sides does a triangle have?", "three/3"),
        ("How many minutes are in an hour?", "60/sixty"),
        ("How many fingers are on one hand?", "five/5"),
        ("How many wheels does a bicycle have?", "two/2"),
    ]),
    *_open("advice", [
        ("How can I sleep better?", "Go to bed at the same time every night."),
        ("What should I do when I am bored?", "Go for a walk."),
        ("Give me a tip for learning a language.", "Speak it every day."),
        ("How do I stay healthy?", "Eat well, sleep enough and move."),
        ("How can I save money?", "Cook at home."),
        ("How can I make new friends?", "Join a club."),
        ("What is a good breakfast?", "Porridge with fruit."),
        ("How do I calm down before an exam?", "Breathe slowly and deeply."),
        ("How can I keep my plants alive?", "Water them once a week."),
        ("What should I take to the beach?", "A towel and sun cream."),
    ]),
]  # fmt: skip

HELD_OUT = [
    *_known("fact", [
        ("What is the capital of Germany?", "Berlin"),
        ("What is the capital of Spain?", "Madrid"),
        ("What is the capital of Japan?", "Tokyo"),
        ("What colour is grass?", "green"),
        ("What is the largest planet in the solar system?", "Jupiter"),
        ("Which animal gives us milk?", "cow/cows"),
        ("Who painted the Mona Lisa?", "Leonardo/Vinci"),
        ("What is the largest ocean?", "Pacific"),
        ("On which continent is Kenya?", "Africa"),
    ]),
    *_known("word", [
        ("What is the opposite of up?", "down"),
        ("What is the opposite of old?", "young/new"),
        ("What is the opposite of empty?", "full"),
        ("What is the plural of foot?", "feet"),
        ("What is the plural of man?", "men"),
        ("What is the past tense of eat?", "ate"),
        ("What is a young cat called?", "kitten"),
        ("What do you call a person who flies a plane?", "pilot"),
        ("What is the Spanish word for thank you?", "gracias"),
    ]),
    *_known("number", [
        ("How many legs does a dog have?", "four/4"),
        ("What is 3 plus 4?", "seven/7"),
        ("What is 9 minus 1?", "eight/8"),
        ("How many days are in a year?", "365"),
        ("How many seconds are in a minute?", "60/sixty"),
        ("How many sides does a square have?", "four/4"),
        ("How many letters are in the English alphabet?", "26/twenty-six"),
        ("How many eyes do people have?", "two/2"),
        ("How many wheels does a car have?", "four/4"),
    ]),
    *_open("advice", [
        ("How can I become a better writer?", ""),
        ("What should I cook for dinner?", ""),
        ("How do I remember people's names?", ""),
        ("How can I get up early?", ""),
        ("What is a good present for my mother?", ""),
        ("How do I start running?", ""),
        ("How can I be less nervous on a plane?", ""),
        ("How can I waste less time?", ""),
        ("What can I do on a rainy day?", ""),
    ]),
    *_open("at length", [
        ("Explain in detail why the sky is blue.", ""),
        ("Write a story about a dragon.", ""),
        ("Describe in detail how bread is made.", ""),
        ("Write a long letter to a friend.", ""),
        ("Explain step by step how to plant a tree.", ""),
        ("Write a poem about the sea.", ""),
    ]),
]  # fmt: skip

STATEMENTS = [  # a beginning, its true end and a false one
    tuple(row.split(" | "))
    for row in """\
The capital of Portugal is | Lisbon | Madrid
The capital of Greece is | Athens | Rome
The capital of Russia is | Moscow | Berlin
The capital of Egypt is | Cairo | Paris
The capital of China is | Beijing | Tokyo
The capital of Canada is | Ottawa | London
The capital of Poland is | Warsaw | Prague
The capital of Norway is | Oslo | Stockholm
The Eiffel Tower stands in | Paris | London
The Great Wall is in | China | Japan
The river Nile flows through | Egypt | Brazil
Mount Everest is in | Asia | Africa
A lemon tastes | sour | sweet
Sugar tastes | sweet | sour
Snow is | white | black
Coal is | black | white
Blood is | red | green
A tomato that is ripe is | red | blue
The sun rises in the | east | west
The sun sets in the | west | east
Water freezes at a temperature of | zero | ninety
Fish live in | water | trees
Penguins cannot | fly | swim
A carpenter works with | wood | bread
A butcher sells | meat | shoes
A doctor works in a | hospital | bakery
The first month of the year is | January | June
The last month of the year is | December | March
The day after Monday is | Tuesday | Friday
The month after April is | May | October
A week has seven | days | hours
A century has a hundred | years | days
The heart pumps | blood | air
Bees visit | flowers | stones
Cows eat | grass | meat
The moon goes around the | earth | sun
The earth goes around the | sun | moon
Iron is a | metal | gas
Oxygen is a | gas | metal
Two times six is | twelve | eleven""".splitlines()
]
