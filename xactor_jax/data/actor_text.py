"""Sentences for actors to say: a small grammar with a wide vocabulary and every English sound."""

from __future__ import annotations

import numpy as np


def _phrases(text: str) -> list[str]:
    return [phrase for line in text.split("\n") for phrase in line.split("|") if phrase]


_PEOPLE = _phrases("""
my brother|the old captain|our neighbour|a young doctor|the whole family|her uncle|the judge
this girl|the painter|your teacher|Bob|Mary|Phoebe|George|the boys upstairs|a famous singer
Mister Vaughan|the woman in the yellow coat|nobody|everyone|the chef|a thousand visitors|the pilot
my youngest daughter|somebody from Birmingham|the shepherd|those children|Judith|the mayor
""")
_VERBS = _phrases("""
bought|measured|forgot|brought back|painted|would rather keep|finally found|watched|broke
carefully moved|wants|laughed about|chose|threw away|has always loved|never understood|washed
pulled|pushed|borrowed|might enjoy|cooked|is looking for|should have saved|changed|imagined
covered|remembers|poured|gathered|heard|asked about|carried|should photograph|joined|beat
could not move
""")
_ADJECTIVES = _phrases("""
blue|heavy|beautiful|rusty|very small|shiny|strange|wonderful|cheap|smooth|golden|wet|purple
ancient|huge|unusual|yellow|thirsty|royal|wooden|orange|broken|warm|sour|quiet|measured|azure
thick|fresh|joyful|whole|dark green|bumpy|lovely|famous|usual|thin
""")
_THINGS = _phrases("""
boat|apple pie|violin|bottle of milk|garage|map|zebra|telephone|jewel|bridge|basket|window
pair of boots|mushroom|umbrella|book about birds|wheel|puppy|television|piece of cheese|chair
feather|thermometer|pumpkin|newspaper|bath towel|oyster|wallet|piano|camera|onion|house|treasure
ring|yacht|vase|mirror|bowl of soup|pyjamas|clock|candle|bicycle|waterfall|moth
""")
_PLACES = _phrases("""
by the river|in the market|behind the church|on the wooden table|near the beach|under the bridge
at the theatre|in the middle of the room|over the mountains|outside our house|across the road
in front of the museum|next to the fire|above the garage|on a farm in Wyoming
beneath the apple trees|through the open door|around the corner
""")
_TIMES = _phrases("""
this morning|on Thursday|before breakfast|every few months|just now|after the meeting
five years ago|about an hour ago|at half past three|yesterday evening|when the bells rang
in the middle of March|twice a week|for the very first time|once more|on her birthday
""")
_OPENERS = _phrases("""
You know,|Maybe|Well,|I suppose|Of course,|People say that|I hope that|Look,|Perhaps
I thought that|Oh,|Believe me,|To be honest,|As far as I remember,|We both know that
""")
_QUESTIONS = _phrases("""
Why would|How could|When will|Where did|Do you think|Have you heard that|Who told you
""")
_SHORT = _phrases("""
What a pity!|Maybe tomorrow.|Please, be patient.|I mean it.|Why not?|That was about time.
Both of them?|Never mind.|Come over here.|Give me a moment.|Absolutely.|You must be joking!
My name is Pam.|We have plenty of food.|Thank you very much.|How do you feel?|Move a bit, please.
""")
_WHOLE = _phrases("""
The beige hue on the waters of the loch impressed all, including the French queen.
Those thieves stole thirty jewels from the judge's vision of a treasure chest.
Bob may put five shiny apples on the wooden table, please.
Which joyful boy would usually choose a yellow toy over a good book?
Peter and Mabel bumped into Mum's pram beside the camp.
She had your dark suit in greasy wash water all year.
We measured the garage, then the boys hauled both of the huge chairs up.
Fifty-five brave fathers felt the very first wave of fever.
""")


def sentence(random: np.random.Generator) -> str:
    """One English sentence, with its punctuation."""

    def one(words: list[str]) -> str:
        return words[random.integers(len(words))]

    thing = f"{one(['the', 'a certain', 'that', 'my', 'their'])} {one(_ADJECTIVES)} {one(_THINGS)}"
    other = f"{one(['the', 'this', 'his', 'your'])} {one(_THINGS)}"
    fact = f"{one(_PEOPLE)} {one(_VERBS)} {thing}"
    kind = random.choice(7, p=[0.28, 0.16, 0.14, 0.12, 0.1, 0.08, 0.12])
    if kind == 0:
        text = f"{fact} {one(_PLACES)}."
    elif kind == 1:
        text = f"{one(_TIMES)}, {fact}."
    elif kind == 2:
        text = f"{one(_OPENERS)} {fact} {one(_TIMES)}."
    elif kind == 3:
        text = f"{fact} {one(_PLACES)}, and {one(_PEOPLE)} {one(_VERBS)} {other}."
    elif kind == 4:
        text = f"{one(_QUESTIONS)} {one(_PEOPLE)} {one(_VERBS)} {other} {one(_PLACES)}?"
    elif kind == 5:
        text = one(_WHOLE)
    else:
        text = one(_SHORT)
    return text[0].upper() + text[1:]
