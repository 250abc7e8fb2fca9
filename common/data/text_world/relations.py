"""Relations of the text world and every sentence it can say about them.

Templates: `{s}` subject, `{o}` object, `{d}` day. Each relation has at least four statements, three questions, two
noun phrases (they nest, for questions of several hops) and a key, the word of its note line `subject | key | object`.
"""

from dataclasses import dataclass

_WORDS = {
    "occupation": (
        "baker miner painter doctor teacher farmer lawyer singer weaver pilot nurse judge tailor chemist sailor porter"
    ),
    "language": "Aric Bemba Cordic Dulan Elvish Faric Gondic Hulu Istri Jovian Keltic Lumen",
    "product": "lamps ropes clocks boats carpets bottles mirrors drums candles bricks saddles gloves",
    "pet": "cat dog parrot rabbit turtle goat hamster pony",
    "food": "rice soup bread fish cheese plums beans honey noodles apples",
    "colour": "red blue green white black yellow grey purple orange brown",
    "instrument": "violin flute piano harp trumpet guitar cello banjo",
    "currency": "crowns marks florins dinars ducats shillings pesos thalers",
}
CLOSED = {name: words.split() for name, words in _WORDS.items()}


@dataclass(frozen=True)
class Relation:
    """One relation.

    Attributes:
        subject: type of its subjects, of `names.TYPES`.
        object: type of its objects: of `names.TYPES`, a list of CLOSED, or `year`.
        key: its word in a note line.
        multi: a subject may have several objects at a time.
        symmetric: holds both ways.
        changes: statements of a dated change; a relation with some may be updated.
        who: questions for the subjects of a given object (`{o}`), where the inverse is asked.
    """

    name: str
    subject: str
    object: str
    key: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    phrases: tuple[str, ...]
    multi: bool = False
    symmetric: bool = False
    changes: tuple[str, ...] = ()
    who: tuple[str, ...] = ()


_ALL = (
    Relation(
        "born_in", "person", "city", "birthplace",
        ("{s} was born in {o}.", "The birthplace of {s} is {o}.", "{o} is where {s} was born.", "{s} comes from {o}."),
        ("Where was {s} born?", "In which city was {s} born?", "What is the birthplace of {s}?"),
        ("the birthplace of {s}", "the city where {s} was born"),
        who=("Who was born in {o}?",),
    ),
    Relation(
        "lives_in", "person", "city", "home",
        ("{s} lives in {o}.", "The home of {s} is in {o}.", "{o} is where {s} lives.", "{s} has a house in {o}."),
        ("Where does {s} live?", "In which city does {s} live?", "What is the home of {s}?"),
        ("the home of {s}", "the city where {s} lives"),
        changes=("On day {d}, {s} moved to {o}.", "{s} moved house to {o} on day {d}.",
                 "Since day {d}, {s} lives in {o}."),
        who=("Who lives in {o}?", "Who has a home in {o}?"),
    ),
    Relation(
        "works_at", "person", "company", "employer",
        ("{s} works at {o}.", "The employer of {s} is {o}.", "{o} employs {s}.", "{s} has a job at {o}."),
        ("Where does {s} work?", "Which company employs {s}?", "Who is the employer of {s}?"),
        ("the employer of {s}", "the company where {s} works"),
        changes=("On day {d}, {s} joined {o}.", "{o} hired {s} on day {d}.", "Since day {d}, {s} works at {o}."),
        who=("Who works at {o}?", "Whom does {o} employ?"),
    ),
    Relation(
        "occupation", "person", "occupation", "job",
        ("{s} is a {o}.", "The job of {s} is {o}.", "{s} works as a {o}.", "By trade, {s} is a {o}."),
        ("What is the job of {s}?", "What does {s} do for a living?", "As what does {s} work?"),
        ("the job of {s}", "the trade of {s}"),
        changes=("On day {d}, {s} became a {o}.", "Since day {d}, {s} works as a {o}.",
                 "{s} was made a {o} on day {d}."),
    ),
    Relation(
        "spouse", "person", "person", "spouse",
        ("{s} is married to {o}.", "The spouse of {s} is {o}.", "{s} and {o} are married.", "{s} married {o}."),
        ("Who is the spouse of {s}?", "To whom is {s} married?", "Whom did {s} marry?"),
        ("the spouse of {s}", "the person married to {s}"),
        symmetric=True,
    ),
    Relation(
        "friend", "person", "person", "friend",
        ("{s} is a friend of {o}.", "{s} and {o} are friends.", "{s} has a friend in {o}.", "{s} is close to {o}."),
        ("Who is a friend of {s}?", "Who are the friends of {s}?", "With whom is {s} friends?"),
        ("a friend of {s}", "someone close to {s}"),
        multi=True, symmetric=True,
    ),
    Relation(
        "speaks", "person", "language", "language",
        ("{s} speaks {o}.", "{s} knows {o}.", "One language of {s} is {o}.", "{s} can speak {o}."),
        ("Which languages does {s} speak?", "What does {s} speak?", "Which languages does {s} know?"),
        ("the languages of {s}", "what {s} speaks"),
        multi=True,
    ),
    Relation(
        "born_year", "person", "year", "birth year",
        ("{s} was born in the year {o}.", "The birth year of {s} is {o}.", "In {o}, {s} was born.",
         "The year {o} saw the birth of {s}."),
        ("In which year was {s} born?", "What is the birth year of {s}?", "When was {s} born?"),
        ("the birth year of {s}", "the year when {s} was born"),
    ),
    Relation(
        "pet", "person", "pet", "pet",
        ("{s} has a {o}.", "The pet of {s} is a {o}.", "{s} keeps a {o}.", "{s} owns a {o}."),
        ("Which pet does {s} have?", "What is the pet of {s}?", "Which animal does {s} keep?"),
        ("the pet of {s}", "the animal of {s}"),
        changes=("On day {d}, {s} got a {o} instead.", "Since day {d}, {s} keeps a {o}.",
                 "{s} chose a {o} as a new pet on day {d}."),
    ),
    Relation(
        "likes", "person", "food", "favourite food",
        ("{s} likes {o} best.", "The favourite food of {s} is {o}.", "Most of all, {s} likes {o}.",
         "{s} loves to eat {o}."),
        ("What does {s} like best?", "What is the favourite food of {s}?", "What does {s} love to eat?"),
        ("the favourite food of {s}", "the food that {s} likes best"),
        changes=("Since day {d}, {s} likes {o} best.", "On day {d}, {s} began to like {o} best.",
                 "{s} changed to {o} as favourite food on day {d}."),
    ),
    Relation(
        "colour", "person", "colour", "favourite colour",
        ("The favourite colour of {s} is {o}.", "{s} prefers {o}.", "{s} always wears {o}.",
         "{o} is the colour of {s}."),
        ("What is the favourite colour of {s}?", "Which colour does {s} prefer?", "Which colour does {s} wear?"),
        ("the favourite colour of {s}", "the colour that {s} prefers"),
        changes=("Since day {d}, {s} prefers {o}.", "On day {d}, {s} began to wear {o}.",
                 "{s} changed to {o} as favourite colour on day {d}."),
    ),
    Relation(
        "plays", "person", "instrument", "instrument",
        ("{s} plays the {o}.", "The instrument of {s} is the {o}.", "{s} has learned the {o}.",
         "At home, {s} plays the {o}."),
        ("Which instrument does {s} play?", "What does {s} play?", "What is the instrument of {s}?"),
        ("the instrument of {s}", "what {s} plays"),
    ),
    Relation(
        "located_in", "city", "country", "country",
        ("{s} is in {o}.", "{s} lies in {o}.", "The country of {s} is {o}.", "{s} is a city of {o}."),
        ("In which country is {s}?", "What is the country of {s}?", "Where does {s} lie?"),
        ("the country of {s}", "the country where {s} lies"),
        who=("Which cities are in {o}?",),
    ),
    Relation(
        "mayor", "city", "person", "mayor",
        ("The mayor of {s} is {o}.", "{o} is the mayor of {s}.", "{s} has {o} as mayor.", "{o} governs {s}."),
        ("Who is the mayor of {s}?", "Who governs {s}?", "Whom does {s} have as mayor?"),
        ("the mayor of {s}", "the person who governs {s}"),
        changes=("On day {d}, {o} became mayor of {s}.", "{s} elected {o} as mayor on day {d}.",
                 "Since day {d}, the mayor of {s} is {o}."),
    ),
    Relation(
        "founded_city", "city", "year", "founding year",
        ("{s} was founded in {o}.", "The founding year of {s} is {o}.", "In {o}, {s} was founded.",
         "The year {o} saw the founding of {s}."),
        ("In which year was {s} founded?", "What is the founding year of {s}?", "When was {s} founded?"),
        ("the founding year of {s}", "the year when {s} was founded"),
    ),
    Relation(
        "based_in", "company", "city", "headquarters",
        ("{s} is based in {o}.", "The headquarters of {s} are in {o}.", "{o} is the seat of {s}.",
         "{s} has its office in {o}."),
        ("Where is {s} based?", "In which city is {s} based?", "Where are the headquarters of {s}?"),
        ("the headquarters of {s}", "the city where {s} is based"),
        changes=("On day {d}, {s} moved its office to {o}.", "Since day {d}, {s} is based in {o}.",
                 "{s} moved to {o} on day {d}."),
        who=("Which companies are based in {o}?",),
    ),
    Relation(
        "founder", "company", "person", "founder",
        ("{s} was founded by {o}.", "The founder of {s} is {o}.", "{o} founded {s}.", "{o} started {s}."),
        ("Who founded {s}?", "Who is the founder of {s}?", "By whom was {s} founded?"),
        ("the founder of {s}", "the person who founded {s}"),
    ),
    Relation(
        "makes", "company", "product", "product",
        ("{s} makes {o}.", "{s} produces {o}.", "One product of {s} is {o}.", "{s} sells {o}."),
        ("What does {s} make?", "Which products does {s} make?", "What does {s} produce?"),
        ("the products of {s}", "what {s} makes"),
        multi=True,
    ),
    Relation(
        "capital", "country", "city", "capital",
        ("The capital of {s} is {o}.", "{o} is the capital of {s}.", "{s} has {o} as its capital.",
         "{s} is governed from {o}."),
        ("What is the capital of {s}?", "Which city is the capital of {s}?", "From where is {s} governed?"),
        ("the capital of {s}", "the city from which {s} is governed"),
    ),
    Relation(
        "tongue", "country", "language", "official language",
        ("The official language of {s} is {o}.", "In {s}, people speak {o}.", "{o} is the official language of {s}.",
         "The people of {s} speak {o}."),
        ("What is the official language of {s}?", "What do people speak in {s}?", "Which language is official in {s}?"),
        ("the official language of {s}", "the language of {s}"),
    ),
    Relation(
        "currency", "country", "currency", "currency",
        ("The currency of {s} is {o}.", "In {s}, people pay in {o}.", "{s} uses {o}.", "{o} are the currency of {s}."),
        ("What is the currency of {s}?", "How do people pay in {s}?", "Which currency does {s} use?"),
        ("the currency of {s}", "the money of {s}"),
    ),
)  # fmt: skip

RELATIONS = {relation.name: relation for relation in _ALL}
BY_SUBJECT = {kind: tuple(r for r in _ALL if r.subject == kind) for kind in ("person", "city", "company", "country")}

FILLERS = (
    "The weather was mild that week.", "Nothing else was said about it.", "It was a quiet day.",
    "People talked about the harvest.", "The road was long and dry.", "A letter came in the morning.",
    "The market was full of people.", "Rain fell in the evening.", "The story is well known.",
    "Many came to see it.", "The old bridge was repaired.", "No one knows why.",
    "The winter was cold.", "There was music in the street.", "The report was short.", "It took a long time.",
)  # fmt: skip
