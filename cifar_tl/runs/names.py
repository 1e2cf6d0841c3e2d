"""What people typed, made fit to be shown in a line of a table, a title, a terminal: nothing in it that acts instead of being seen."""

import unicodedata

# Joiners are not seen, but emoji and several scripts are spelled with them.
_JOINERS = "\u200c\u200d"
_NEW_LINE = "\n"
_UNSEEN = ("Cc", "Cf", "Cs")  # control codes, marks that turn the direction of writing, halves of characters


def seen(text: str) -> str:
    """Without characters that are not seen; new lines stay. Composed (NFC), so that what looks alike is found alike."""
    if not text.replace(_NEW_LINE, "").isprintable():
        text = "".join(c for c in text if c == _NEW_LINE or c in _JOINERS or unicodedata.category(c) not in _UNSEEN)
    return unicodedata.normalize("NFC", text)


def one_line(text: str) -> str:
    """All white space as single spaces, and without characters that are not seen: '' if nothing else is in it."""
    return " ".join(seen(" ".join(text.split())).split()).strip(_JOINERS + " ")
