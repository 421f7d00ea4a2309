"""What the demo model is taught: seeded conversations in plain English, written by the project itself."""

import json
from pathlib import Path
from random import Random
from typing import Any

FACTS: dict[str, Any] = json.loads((Path(__file__).parent / "facts.json").read_text("utf-8"))
UNKNOWN = "I do not know that. I am only a small demo model."
ONE_WORD = ("Answer in one word.", "Answer with one word.", "Reply with one word only.", "One word only.")
IN_JSON = ("Answer in JSON.", "Reply in JSON.", "Respond with JSON.", "Return a JSON object.")
SYSTEM = ("You are a helpful assistant.", "You are a helpful assistant", "Be brief.", "Answer briefly.",
  "You answer questions.", "You are a friendly assistant. Be concise.")  # fmt: skip
SYLLABLES = "ba be bo da de do fa fi ga go ka ki ko la le lo ma mi mo na ne no pa pe po ra re ri ro sa si so \
ta te to va vi vo za zu gra sto ler min tor pex quil bren dal nor sel wex".split()

Message = dict[str, Any]
Conversation = dict[str, Any]  # messages and, if any are offered, tools
Answer = tuple[str, str, str]  # question, sentence, and the one word that matters in it ("" if there is none)


def conversations(seed: int, count: int) -> list[Conversation]:
    """The same seed gives the same rows; every family of sentences has its share."""
    rng = Random(seed)
    families = [family for family, _ in FAMILIES]
    weights = [weight for _, weight in FAMILIES]
    return [rng.choices(families, weights)[0](rng) for _ in range(count)]


def plain(rng: Random) -> Conversation:
    """One to three unrelated questions in a row: what was said before must not confuse the model."""
    messages = _system(rng)
    for _ in range(rng.choices((1, 2, 3), (8, 1, 1))[0]):
        question, sentence, word = fact(rng)
        if word and rng.random() < 0.12:
            question, sentence = f"{question} {rng.choice(ONE_WORD)}", word.capitalize() + "."
        messages += _turn(_as_typed(rng, question), sentence)
    return {"messages": messages}


def by_instruction(rng: Random) -> Conversation:
    """The system message decides how to answer."""
    question, _, word = next(a for a in iter(lambda: fact(rng), None) if a[2])
    if rng.random() < 0.5:
        return {"messages": [_message("system", rng.choice(ONE_WORD)), *_turn(question, word.capitalize() + ".")]}
    answer = json.dumps({"answer": word})
    if rng.random() < 0.5:
        return {"messages": [*_system(rng), *_turn(f"{question} {rng.choice(IN_JSON)}", answer)]}
    return {"messages": [_message("system", rng.choice(IN_JSON)), *_turn(question, answer)]}


def unknown(rng: Random) -> Conversation:
    """Whatever it was not taught gets one plain answer instead of an invention."""
    return {"messages": [*_system(rng), *_turn(_as_typed(rng, strange_question(rng)), UNKNOWN)]}


def talk(rng: Random) -> Conversation:
    questions, answer = rng.choice(FACTS["talk"])
    return {"messages": [*_system(rng), *_turn(rng.choice(questions.split("|")), answer)]}


def echo(rng: Random) -> Conversation:
    """Saying a text again teaches the model to copy, which names and tool calls need too."""
    makers = (lambda: rng.choice(FACTS["words"]), lambda: made_up(rng), lambda: any_letters(rng))
    words = " ".join(rng.choice(makers)() for _ in range(rng.randint(1, 5)))
    ask = rng.choice(("Say {}", "Say {}.", "Repeat after me: {}", "Repeat: {}", "Please say {}.", "Say: {}"))
    return {"messages": [*_system(rng), *_turn(ask.format(words), words)]}


def remembered_name(rng: Random) -> Conversation:
    name = rng.choice(FACTS["people"]) if rng.random() < 0.5 else made_up(rng).capitalize()
    told = rng.choice(("My name is {}.", "I am {}.", "Hello, my name is {}.", "Hi, I am {}.", "Call me {}."))
    asked = rng.choice(("What is my name?", "Do you remember my name?", "Who am I?", "what is my name?"))
    between = [_turn(question, sentence) for question, sentence, _ in (fact(rng) for _ in range(rng.randint(0, 1)))]
    messages = [*_system(rng), *_turn(told.format(name), f"Nice to meet you, {name}.")]
    return {"messages": [*messages, *sum(between, []), *_turn(asked, f"Your name is {name}.")]}


def counting(rng: Random) -> Conversation:
    start, end = rng.choice(((1, 5), (1, 10), (1, 10), (1, 20), (1, 50), (1, 100), (1, rng.randint(3, 30))))
    ask = rng.choice(("Count to {1}.", "Count from {0} to {1}.", "Please count to {1}.", "count to {1}"))
    return {"messages": [*_system(rng), *_turn(ask.format(start, end), ", ".join(map(str, range(start, end + 1))) + ".")]}


def story(rng: Random) -> Conversation:
    hero = rng.choice([name for name, _ in FACTS["young"]])
    ask, long = rng.choice((("Tell me a story.", 0), ("Tell me a long story.", 1), ("Write a long story.", 1),
      ("Tell me a story about a {}.", 0), ("Write a long story about a {}.", 1), ("Write a story about a {}.", 0)))  # fmt: skip
    hero = hero if "{}" in ask else "dog"
    return {"messages": [*_system(rng), *_turn(ask.format(hero), "\n".join(STORY[: 6 if long else 2]).replace("{}", hero))]}


STORY = (
    "Once upon a time there was a little {} who lived at the edge of a forest. The {} had a small house and a garden.",
    "One day the {} heard a song from the river and went to see who was there. It was a frog, and they became friends.",
    "In the summer they swam in the river and slept in the sun. In the autumn they gathered apples and nuts.",
    "Then the winter came and the river was full of ice. The frog was cold and had nothing to eat.",
    "So the {} opened the door and said: come in, my house is small but it is warm. They sat by the fire and told stories.",
    "When spring came the snow was gone and the garden was green. And the {} and the frog were friends for ever.",
)

TOOL_VERBS = ("get", "fetch", "find", "check", "look_up", "read")
#   stem       argument   what it gives                   questions; {} is the argument
TOOLS = {
    "weather": ("city", "the weather in a city", ("What is the weather in {}?", "What's the weather in {}?",
      "How is the weather in {}?", "What is the weather like in {}?", "What is the weather like in {} today?",
      "What's the weather like in {}?", "Is it raining in {}?", "Tell me the weather in {}.", "Weather in {}?",
      "What is the current weather in {}?", "What is the weather in {} today?", "What is the temperature in {}?")),
    "time": ("city", "the time in a city", ("What time is it in {}?", "What is the time in {}?", "Tell me the time in {}.")),
    "population": ("city", "how many people live in a city", ("How many people live in {}?", "What is the population of {}?")),
    "phone_number": ("name", "the phone number of a person", ("What is the phone number of {}?", "How can I call {}?")),
    "price": ("product", "the price of a product", ("What does a {} cost?", "What is the price of a {}?", "How much is a {}?")),
}  # fmt: skip
REPLIES = ("sunny, 21 degrees", "rainy, 9 degrees", "cloudy, 14 degrees", "snow, -2 degrees", "18 C and windy", "sunny", "rain",
  "12", "25", "7", "10:30", "14:05", "about 2 million", "555 0199", "3 euros", "not known")  # fmt: skip


def tools(rng: Random) -> Conversation:
    """Tools on offer: call the right one, tell what it gave, or answer without one."""
    offered = rng.sample(sorted(TOOLS), rng.choice((1, 1, 1, 2)))
    stem = "weather" if "weather" in offered and rng.random() < 0.7 else offered[0]
    schemas = {name: _tool(rng, name) for name in offered}
    row: Conversation = {"messages": _system(rng), "tools": [{"type": "function", "function": schemas[n]} for n in offered]}
    if rng.random() < 0.2:
        question, sentence, _ = fact(rng)
        row["messages"] += _turn(question, sentence)
        return row
    value = _value(rng, TOOLS[stem][0])
    question = rng.choice(TOOLS[stem][2]).format(value)
    parameter = next(iter(schemas[stem]["parameters"]["properties"]))
    call = {"type": "function", "function": {"name": schemas[stem]["name"], "arguments": {parameter: value}}}
    row["messages"] += [_message("user", _as_typed(rng, question)), {"role": "assistant", "content": "", "tool_calls": [call]}]
    if rng.random() < 0.4:
        row["messages"] += _tool_reply(rng)
    return row


def _tool(rng: Random, stem: str) -> dict[str, Any]:
    """A schema as various clients would write it."""
    argument, gives, _ = TOOLS[stem]
    argument = "location" if argument == "city" and rng.random() < 0.3 else argument
    parameter: dict[str, Any] = {"type": "string"}
    if rng.random() < 0.4:
        parameter["description"] = rng.choice((f"The {argument}", f"the name of the {argument}", f"{argument} name"))
    properties = {argument: parameter}
    if rng.random() < 0.15:
        properties["unit"] = {"type": "string", "enum": ["celsius", "fahrenheit"]}
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if rng.random() < 0.7:
        parameters["required"] = [argument]
    if rng.random() < 0.1:
        parameters["additionalProperties"] = False
    verb = "get" if rng.random() < 0.5 else rng.choice(TOOL_VERBS)
    name = f"{verb}_{rng.choice(('current_', '')) if rng.random() < 0.3 else ''}{stem}"
    described = rng.choice((f"{verb.replace('_', ' ').capitalize()} {gives}", f"Gives {gives}.", f"Get {gives}."))
    return {"name": name, **({"description": described} if rng.random() < 0.75 else {}), "parameters": parameters}


def _tool_reply(rng: Random) -> list[Message]:
    reply = rng.choice(REPLIES) if rng.random() < 0.6 else f"{made_up(rng)} {rng.randint(1, 99)}"
    content = reply if rng.random() < 0.5 else json.dumps({rng.choice(("result", "value", "weather")): reply})
    return [_message("tool", content), _message("assistant", f"The answer is: {reply}")]


def _value(rng: Random, argument: str) -> str:
    known = {
        "city": [*FACTS["cities"], *(row[1] for row in FACTS["countries"])],
        "name": FACTS["people"],
        "product": FACTS["words"],
    }[argument]
    return rng.choice(known) if rng.random() < 0.7 else made_up(rng).capitalize()


def fact(rng: Random) -> Answer:
    return rng.choices([f for f, _ in FACT_FAMILIES], [w for _, w in FACT_FAMILIES])[0](rng)


def _country(rng: Random) -> Answer:
    country, capital, language, continent = rng.choice(FACTS["countries"])
    return rng.choice((
        *[(ask.format(country), f"The capital of {country} is {capital}.", capital) for ask in (
          "What is the capital of {}?", "What is the capital of {}?", "What is the capital city of {}?", "capital of {}",
          "Which city is the capital of {}?", "Tell me the capital of {}.", "What's the capital of {}?", "Capital of {}?")],
        (f"Which country has the capital {capital}?", f"{capital} is the capital of {country}.", country),
        (f"{capital} is the capital of which country?", f"{capital} is the capital of {country}.", country),
        (f"What language do people speak in {country}?", f"People in {country} speak {language}.", language),
        (f"Which language is spoken in {country}?", f"People in {country} speak {language}.", language),
        (f"Where is {country}?", f"{country} is in {continent}.", continent),
        (f"On which continent is {country}?", f"{country} is in {continent}.", continent),
    ))  # fmt: skip


def _colour(rng: Random) -> Answer:
    (thing, colour), (_, other) = rng.sample(FACTS["colours"], 2)
    sentence, shade = f"{thing[0].upper()}{thing[1:]} is {colour}.", rng.choice(("colour", "color"))
    if rng.random() < 0.25:
        said = rng.choice((colour, other))
        word = "Yes" if said == colour else "No"
        return f"Is {thing} {said}?", f"{word}, {thing} is {colour}.", word
    ask = rng.choice((f"What {shade} is {thing}?", f"What {shade} is {thing}?", f"Which {shade} does {thing} have?",
      f"What is the {shade} of {thing}?", f"Tell me the {shade} of {thing}."))  # fmt: skip
    return ask, sentence, colour


def _opposite(rng: Random) -> Answer:
    word, other = rng.choice(FACTS["opposites"])
    ask = rng.choice(("What is the opposite of {}?", "What's the opposite of {}?", "Tell me the opposite of {}."))
    return ask.format(word), f"The opposite of {word} is {other}.", other


def _animal(rng: Random) -> Answer:
    (one, sound), (parent, child), (legged, legs) = (rng.choice(FACTS[key]) for key in ("sounds", "young", "legs"))
    a_child, a_legged, a_one = (_with_article(name) for name in (child, legged, one))
    return rng.choice((
        (f"What sound does {a_one} make?", f"{a_one.capitalize()} says {sound}.", sound),
        (f"What does {a_one} say?", f"{a_one.capitalize()} says {sound}.", sound),
        (f"What is a baby {parent} called?", f"A baby {parent} is called {a_child}.", child),
        (f"How many legs does {a_legged} have?", f"{a_legged.capitalize()} has {legs} legs.", legs),
    ))  # fmt: skip


def _kind(rng: Random) -> Answer:
    name, kind = rng.choice(FACTS["kinds"])
    thing, a_kind = _with_article(name), _with_article(kind)
    ask = rng.choice(("What is {}?", "What kind of thing is {}?", "What's {}?", "Tell me what {} is."))
    return ask.format(thing), f"{thing.capitalize()} is {a_kind}.", kind


def _sum(rng: Random) -> Answer:
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    ask = rng.choice(("What is {} + {}?", "What is {}+{}?", "{} + {}", "{}+{}=", "What is {} plus {}?", "How much is {} plus {}?"))
    return ask.format(a, b), f"{a} + {b} = {a + b}.", str(a + b)


def _order(rng: Random) -> Answer:
    names = {"day": FACTS["general"][-2][1], "month": FACTS["general"][-1][1]}
    unit = rng.choice(("day", "month"))
    cycle = names[unit].rstrip(".").split(", ")
    at, step = rng.randrange(len(cycle)), rng.choice((1, -1))
    how, other = ("after" if step == 1 else "before"), cycle[(at + step) % len(cycle)]
    return f"What {unit} comes {how} {cycle[at]}?", f"{other} comes {how} {cycle[at]}.", other


def _general(rng: Random) -> Answer:
    question, sentence = rng.choice(FACTS["general"])
    return question, sentence, ""


def strange_question(rng: Random) -> str:
    """A question about things that do not exist, put together from parts."""
    a, b = made_up(rng), rng.choice((made_up(rng), rng.choice(FACTS["words"])))
    name = rng.choice((a, a.capitalize(), rng.choice(FACTS["people"]), rng.choice(FACTS["words"])))
    ask = rng.choice(STRANGE)
    return ask.format(name if ask.startswith("What is {0}?") is False else rng.choice((a, a.capitalize())), b)


STRANGE = (
    "What is {0}?", "Who is {0}?", "What is the {0} of {1}?", "Which {1} does {0} use?", "How do I {1} a {0}?", "How does {0} work?",
    "Why is {0} {1}?", "What does {0} mean?", "When was {0} made?", "Where can I find {0}?", "Who made {0}?", "Can {0} {1}?",
    "Explain {0}.", "Tell me about {0}.", "Tell me about {0} and {1}.", "What does {0} do with {1}?", "Does {0} need a {1}?",
    "Is {0} a {1}?", "How many {1} does {0} have?", "What is the best {1} for {0}?", "Write a {1} for {0}.", "Describe {0}.",
    "Who is the {1} of {0}?", "Which {1} is {0}?", "How long does {0} take?", "Where does {0} keep its {1}?", "Give me a {1}.",
    "Why do {0} and {1} differ?", "What happens if {0} meets {1}?", "Should I {1} {0}?", "Translate {0} to {1}.", "{0} {1}?",
    "How do I start {0}?", "What does {0} cost?", "What can I do with {0}?", "How do I pay for {0}?", "{0} {1} {0}", "{0}",
    "What is {0} made of?", "Who uses {0}?", "Where does {0} run?", "What is {0} for?", "Summarize {0}.", "Is {0} free?",
    "In which {1} is {0}?", "What port does {0} use?", "What is the motto of {0}?", "Which {0} {1} is it?", "Fix the {0}.",
)  # fmt: skip


def made_up(rng: Random) -> str:
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 4)))


def any_letters(rng: Random) -> str:
    """Characters of every kind, so that each token of the vocabulary gets a sound place in the model."""
    start, end = rng.choices(((33, 127), (65, 91), (97, 123), (160, 1280), (0x4E00, 0x9FA0), (0x1F300, 0x1F650)), (6, 4, 6, 1, 1, 1))[0]
    return "".join(chr(rng.randrange(start, end)) for _ in range(rng.randint(1, 6)))


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _as_typed(rng: Random, question: str) -> str:
    """People type as they like; the facts stay the same."""
    if rng.random() < 0.1:
        question = question.rstrip("?.")
    if rng.random() < 0.1:
        question = question[0].lower() + question[1:]
    return f"Please answer: {question}" if rng.random() < 0.03 else question


def _system(rng: Random) -> list[Message]:
    return [_message("system", rng.choice(SYSTEM))] if rng.random() < 0.3 else []


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _turn(question: str, answer: str) -> list[Message]:
    return [_message("user", question), _message("assistant", answer)]


FACT_FAMILIES = ((_country, 6), (_colour, 3), (_opposite, 2), (_animal, 3), (_kind, 2), (_sum, 4), (_order, 1), (_general, 3))
FAMILIES = ((plain, 50), (by_instruction, 7), (unknown, 12), (talk, 7), (echo, 9), (remembered_name, 4), (counting, 2), (story, 2), (tools, 14))  # fmt: skip
