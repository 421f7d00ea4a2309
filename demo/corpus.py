"""What the demo model is taught: seeded conversations in plain English, all written by the project itself."""

import json
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

WORDS: dict[str, Any] = json.loads((Path(__file__).parent / "corpus.json").read_text("utf-8"))
UNKNOWN = "I do not know that. I am only a small demo model."

Message = dict[str, Any]
Conversation = dict[str, Any]  # messages and, if any are offered, tools
Answer = tuple[str, str, str]  # question, sentence, and the one word that matters in it ("" if there is none)


def conversations(seed: int, count: int) -> list[Conversation]:
    """The same seed gives the same rows; every family of sentences has its share."""
    rng = Random(seed)  # noqa: S311
    families, weights = zip(*FAMILIES.items(), strict=True)
    return [rng.choices(families, weights)[0](rng) for _ in range(count)]


def plain(rng: Random) -> Conversation:
    """One to three unrelated questions in a row: what was said before must not confuse the model."""
    messages = _system(rng)
    for _ in range(rng.choices((1, 2, 3), (8, 1, 1))[0]):
        question, sentence, _ = fact(rng)
        messages += _turn(_as_typed(rng, question), sentence)
    return {"messages": messages}


def by_instruction(rng: Random) -> Conversation:
    """How to answer is said in the system message or behind the question."""
    question, _, word = next(answer for answer in iter(lambda: fact(rng), None) if answer[2])
    how, answer = rng.choice((("one_word", word.capitalize() + "."), ("in_json", json.dumps({"answer": word}))))
    instruction = rng.choice(WORDS[how])
    if rng.random() < 0.5:
        return {"messages": [_message("system", instruction), *_turn(question, answer)]}
    return {"messages": [*_system(rng), *_turn(f"{question} {instruction}", answer)]}


def unknown(rng: Random) -> Conversation:
    """Whatever it was not taught gets one plain answer instead of an invention."""
    return {"messages": [*_system(rng), *_turn(_as_typed(rng, strange_question(rng)), UNKNOWN)]}


def talk(rng: Random) -> Conversation:
    questions, answer = rng.choice(WORDS["talk"])
    return {"messages": [*_system(rng), *_turn(rng.choice(questions.split("|")), answer)]}


def echo(rng: Random) -> Conversation:
    """Saying a text again teaches the model to copy, which names and tool calls need too."""
    makers = (lambda: rng.choice(WORDS["words"]), lambda: made_up(rng), lambda: any_letters(rng))
    words = " ".join(rng.choices(makers, (4, 4, 1))[0]() for _ in range(rng.randint(1, 6)))
    return {"messages": [*_system(rng), *_turn(rng.choice(WORDS["say"]).format(words), words)]}


def remembered_name(rng: Random) -> Conversation:
    name = rng.choice(WORDS["people"]) if rng.random() < 0.5 else made_up(rng).capitalize()
    between = [_turn(*fact(rng)[:2]) for _ in range(rng.randint(0, 1))]
    messages = [*_system(rng), *_turn(rng.choice(WORDS["told_name"]).format(name), f"Nice to meet you, {name}.")]
    asked = _turn(rng.choice(WORDS["asked_name"]), f"Your name is {name}.")
    return {"messages": [*messages, *chain(*between), *asked]}


def counting(rng: Random) -> Conversation:
    end = rng.choice((5, 10, 10, 20, 50, 100, 100, rng.randint(2, 30)))
    numbers = ", ".join(map(str, range(1, end + 1)))
    return {"messages": [*_system(rng), *_turn(rng.choice(WORDS["count"]).format(end), f"{numbers}.")]}


def story(rng: Random) -> Conversation:
    asks, sentences = rng.choice((("ask_story", 2), ("ask_long_story", len(WORDS["story"]))))
    ask, hero = rng.choice(WORDS[asks]), rng.choice(WORDS["young"])[0]
    text = "\n".join(WORDS["story"][:sentences]).replace("{}", hero if "{}" in ask else "dog")
    return {"messages": [*_system(rng), *_turn(ask.format(hero), text)]}


def tools(rng: Random) -> Conversation:
    """Tools on offer: call the right one, tell what it gave, or answer without one."""
    offered = rng.sample(WORDS["tools"], rng.choice((1, 1, 1, 2)))
    _, argument, _, questions = chosen = max(offered, key=lambda tool: (tool[0] == "weather", rng.random()))
    functions = {tool[0]: _function(rng, tool) for tool in offered}
    offer = [{"type": "function", "function": function} for function in functions.values()]
    if rng.random() < 0.2:
        return {**rng.choice((plain, talk, unknown))(rng), "tools": offer}
    value, function = _value(rng, argument), functions[chosen[0]]
    arguments = {next(iter(function["parameters"]["properties"])): value}
    call = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    question = _message("user", _as_typed(rng, rng.choice(questions).format(value)))
    messages = [*_system(rng), question, {**_message("assistant", ""), "tool_calls": [call]}]
    return {"messages": messages + (_tool_reply(rng) if rng.random() < 0.4 else []), "tools": offer}


def _function(rng: Random, tool: tuple[str, str, str, list[str]]) -> dict[str, Any]:
    """A function's schema as various clients would write it."""
    stem, argument, gives, _ = tool
    argument = "location" if argument == "city" and rng.random() < 0.3 else argument
    described = (f"The {argument}", f"the name of the {argument}", f"{argument} name")
    parameter = {"type": "string", **_sometimes(rng, 0.4, description=rng.choice(described))}
    unit = _sometimes(rng, 0.15, unit={"type": "string", "enum": ["celsius", "fahrenheit"]})
    parameters = {"type": "object", "properties": {argument: parameter, **unit}}
    parameters |= _sometimes(rng, 0.7, required=[argument]) | _sometimes(rng, 0.1, additionalProperties=False)
    verb = rng.choice(("get", rng.choice(WORDS["tool_verbs"])))
    does = rng.choice((f"{verb.replace('_', ' ').capitalize()} {gives}", f"Gives {gives}.", f"Get {gives}."))
    name = f"{verb}_{rng.choice(('current_', '', '', ''))}{stem}"
    return {"name": name, **_sometimes(rng, 0.75, description=does), "parameters": parameters}


def _sometimes(rng: Random, chance: float, **entry: Any) -> dict[str, Any]:
    return entry if rng.random() < chance else {}


def _tool_reply(rng: Random) -> list[Message]:
    reply = rng.choice(WORDS["replies"]) if rng.random() < 0.5 else f"{made_up(rng)} {rng.randint(1, 99)}"
    content = rng.choice((reply, json.dumps({rng.choice(("result", "value", "weather")): reply})))
    return [_message("tool", content), _message("assistant", f"The answer is: {reply}")]


def _value(rng: Random, argument: str) -> str:
    if rng.random() < 0.3:
        return made_up(rng).capitalize()
    cities = [*WORDS["cities"], *(capital for _, capital, *_ in WORDS["countries"])]
    return str(rng.choice({"city": cities, "name": WORDS["people"], "product": WORDS["words"]}[argument]))


def fact(rng: Random) -> Answer:
    families, weights = zip(*FACTS.items(), strict=True)
    answer: Answer = rng.choices(families, weights)[0](rng)
    return answer


def _country(rng: Random) -> Answer:
    country, capital, language, continent = rng.choice(WORDS["countries"])
    about, sentence, word = rng.choices(
        (
            (WORDS["capital"], f"The capital of {country} is {capital}.", capital),
            ([f"Which country has the capital {capital}?"], f"{capital} is the capital of {country}.", country),
            (WORDS["language"], f"People in {country} speak {language}.", language),
            (WORDS["continent"], f"{country} is in {continent}.", continent),
        ),
        (6, 1, 1, 1),
    )[0]
    return rng.choice(about).format(country), sentence, word


def _colour(rng: Random) -> Answer:
    (thing, colour), (_, other) = rng.sample(WORDS["colours"], 2)
    sentence = f"{thing[0].upper()}{thing[1:]} is {colour}."
    if rng.random() < 0.75:
        return rng.choice(WORDS["colour_of"]).format(thing), sentence, colour
    said = rng.choice((colour, other))
    word = "Yes" if said == colour else "No"
    return f"Is {thing} {said}?", f"{word}, {thing} is {colour}.", word


def _opposite(rng: Random) -> Answer:
    word, other = rng.choice(WORDS["opposites"])
    return rng.choice(WORDS["opposite_of"]).format(word), f"The opposite of {word} is {other}.", other


def _animal(rng: Random) -> Answer:
    (one, sound), (parent, child), (legged, legs) = (rng.choice(WORDS[key]) for key in ("sounds", "young", "legs"))
    a_child, a_legged, a_one = (_with_article(name) for name in (child, legged, one))
    answers: list[Answer] = [
        (f"What sound does {a_one} make?", f"{a_one.capitalize()} says {sound}.", sound),
        (f"What does {a_one} say?", f"{a_one.capitalize()} says {sound}.", sound),
        (f"What is a baby {parent} called?", f"A baby {parent} is called {a_child}.", child),
        (f"How many legs does {a_legged} have?", f"{a_legged.capitalize()} has {legs} legs.", legs),
    ]
    return rng.choice(answers)


def _kind(rng: Random) -> Answer:
    name, kind = rng.choice(WORDS["kinds"])
    thing = _with_article(name)
    ask = rng.choice(WORDS["kind_of"]).format(thing)
    return ask, f"{thing.capitalize()} is {_with_article(kind)}.", kind


def _sum(rng: Random) -> Answer:
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    return rng.choice(WORDS["plus"]).format(a, b), f"{a} + {b} = {a + b}.", str(a + b)


def _order(rng: Random) -> Answer:
    unit, names = rng.choice((("day", WORDS["general"][-2][1]), ("month", WORDS["general"][-1][1])))
    cycle = names.rstrip(".").split(", ")
    at, (how, step) = rng.randrange(len(cycle)), rng.choice((("after", 1), ("before", -1)))
    other = cycle[(at + step) % len(cycle)]
    return f"What {unit} comes {how} {cycle[at]}?", f"{other} comes {how} {cycle[at]}.", other


def _general(rng: Random) -> Answer:
    question, sentence = rng.choice(WORDS["general"])
    return question, sentence, ""


def strange_question(rng: Random) -> str:
    """A question about things that do not exist, put together from parts."""
    name, thing = made_up(rng), rng.choice((made_up(rng), rng.choice(WORDS["words"]), rng.choice(WORDS["things"])))
    return str(rng.choice(WORDS["strange"])).format(rng.choice((name, name.capitalize())), thing)


def made_up(rng: Random) -> str:
    return "".join(rng.choices(WORDS["syllables"], k=rng.randint(2, 3)))


def any_letters(rng: Random) -> str:
    """Characters of every kind, so that each token of the vocabulary gets a sound place in the model."""
    kinds = {(33, 127): 6, (65, 91): 4, (97, 123): 6, (160, 1280): 1, (0x4E00, 0x9FA0): 1, (0x1F300, 0x1F650): 1}
    start, end = rng.choices(list(kinds), list(kinds.values()))[0]
    return "".join(chr(rng.randrange(start, end)) for _ in range(rng.randint(1, 4)))


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
    return [_message("system", rng.choice(WORDS["system"]))] if rng.random() < 0.3 else []


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _turn(question: str, answer: str) -> list[Message]:
    return [_message("user", question), _message("assistant", answer)]


FACTS = {_country: 6, _colour: 3, _opposite: 2, _animal: 3, _kind: 2, _sum: 4, _order: 2, _general: 3}
FAMILIES = {
    plain: 40,
    by_instruction: 9,
    unknown: 10,
    talk: 6,
    echo: 14,
    remembered_name: 6,
    counting: 4,
    story: 3,
    tools: 18,
}
