"""Dialogues: sessions in which a person of the world tells facts and preferences and later revises them."""

HEADERS = ("Day {d}.", "User: ", "Assistant: ")
GREETINGS = ("Hello, I am {s}.", "Good morning, I am {s}.", "It is {s} here.")
WELCOMES = ("Hello, {s}.", "Good morning, {s}.", "Good to see you, {s}.")
REPLIES = ("I see.", "Good to know.", "Thank you.", "Is there more?", "I have noted it.", "That is well known now.")
ASIDES = ("How are you?", "What a day!", "Is it cold where you are?", "I have little time today.")

TOLD = {  # first person, by relation of a person
    "born_in": ("I was born in {o}.", "I come from {o}."),
    "lives_in": ("I live in {o}.", "I have a house in {o}.", "My home is in {o}."),
    "works_at": ("I work at {o}.", "I have a job at {o}.", "My employer is {o}."),
    "occupation": ("I am a {o}.", "I work as a {o}.", "By trade, I am a {o}."),
    "spouse": ("I am married to {o}.", "My spouse is {o}."),
    "friend": ("I am a friend of {o}.", "{o} is my friend."),
    "speaks": ("I speak {o}.", "I know {o}."),
    "born_year": ("I was born in the year {o}.", "My birth year is {o}."),
    "pet": ("I have a {o}.", "I keep a {o}.", "My pet is a {o}."),
    "likes": ("I like {o} best.", "Most of all, I like {o}.", "My favourite food is {o}."),
    "colour": ("I prefer {o}.", "I always wear {o}.", "My favourite colour is {o}."),
    "plays": ("I play the {o}.", "My instrument is the {o}."),
}
CORRECTIONS = {  # explicit: the old value {p} is taken back
    "lives_in": ("Actually, I live in {o} now, not in {p}.", "Actually, I no longer live in {p} but in {o}."),
    "works_at": ("Actually, I work at {o} now, not at {p}.", "Actually, I no longer work at {p} but at {o}."),
    "occupation": ("Actually, I am a {o} now, not a {p}.", "Actually, I am no longer a {p} but a {o}."),
    "pet": ("Actually, I have a {o} now, not a {p}.", "Actually, I no longer have a {p} but a {o}."),
    "likes": ("Actually, I like {o} best now, not {p}.", "Actually, I no longer like {p} best but {o}."),
    "colour": ("Actually, I prefer {o} now, not {p}.", "Actually, I no longer prefer {p} but {o}."),
}
CHANGES = {  # implicit: the old value goes unsaid
    "lives_in": ("I moved to {o}.", "I moved house to {o}."),
    "works_at": ("I joined {o}.", "{o} hired me."),
    "occupation": ("I became a {o}.", "I was made a {o}."),
    "pet": ("I got a {o} instead.", "I chose a {o} as a new pet."),
    "likes": ("I began to like {o} best.", "I changed to {o} as favourite food."),
    "colour": ("I began to wear {o}.", "I changed to {o} as favourite colour."),
}

WORDS = (
    *HEADERS, *GREETINGS, *WELCOMES, *REPLIES, *ASIDES,
    *(template for group in (TOLD, CORRECTIONS, CHANGES) for templates in group.values() for template in templates),
)  # fmt: skip
