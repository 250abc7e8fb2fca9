"""Fact streams: a world told in chunks, with the gold memory state after each."""

WORDS: tuple[str, ...] = ()  # facts and filler only: the words of `relations`
