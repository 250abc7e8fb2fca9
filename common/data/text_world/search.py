"""A search environment over a corpus: several questions at once, a budget of turns, a gold sequence of queries."""

QUERY = "{s} {key}"
SEPARATOR = "; "

WORDS = (QUERY, SEPARATOR)
