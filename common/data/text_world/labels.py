"""Label streams (test-time learning): samples whose label hangs on a hidden keyword, the map drawn anew each time."""

from common.data.text_world.relations import CLOSED

SAMPLE = "{words} -> label {label}"
QUESTION = "Which label has {words}?"
VOCABULARY = tuple(dict.fromkeys(word for words in CLOSED.values() for word in words))

WORDS = (SAMPLE, QUESTION, *VOCABULARY)
