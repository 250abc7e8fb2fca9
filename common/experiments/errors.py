"""The one error a user sees: a mistake or a missing thing, said in one line with the way out."""

import difflib
from collections.abc import Collection, Iterable


class UserError(Exception):
    """A mistake of the user or a missing component; the message is one line, the exit code 2."""


def check_known(*settings: tuple[str, str, Collection[str]]) -> None:
    """UserError for the first setting (its key, its value, its choices) whose value is none of its choices."""
    for key, value, choices in settings:
        if value not in choices:
            raise UserError(f"unknown {key} '{value}'{nearest(value, choices)}")


def nearest(word: str, choices: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest choice, else the list of choices (at most twelve)."""
    known = sorted(choices)
    close = [choice for choice in known if choice.rsplit(".", 1)[-1] == word]  # `lr` for `settings.lr`
    close = close or difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    if not known:
        return ""
    more = f", … ({len(known)} in all)" if len(known) > 12 else ""
    return f"; choices: {', '.join(known[:12])}{more}"
