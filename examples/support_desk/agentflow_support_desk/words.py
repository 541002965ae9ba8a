"""Words as the desk sees them: what counts as one, which are too common to tell anything, and which one was meant.

`Vocabulary` corrects typing errors towards the words of the examples. A word counts as mistyped when it is one step
away from a known one: a letter left out, added, replaced or swapped with its neighbour. Both words then share a form
with one letter deleted, so a table of those forms finds the pair without comparing words (Mor and Fraenkel 1982, "A
hash code method for detecting and correcting spelling errors"). It never looks at a word of fewer than four letters:
too many are neighbours.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

_COMMON = """
a about after again all also am an and any are as at be because been before being but by can cannot could d dear did
didn do does doesn doing don for from get getting give go good got had has have haven he hello help her here hers hi
him his how i if im in into is isn it its just kind kindly know let like ll m make many may me might more most much
must my need no nor not now of off ok on only or our out over please pls put re really regards s said say says she
should so some still such t take tell than thank thanks that the their them then there these they thing this those
through to too try until up us use ve very want was we well were what when where which while who why will with won
would yes yet you your yours
"""

COMMON_WORDS = frozenset(_COMMON.split())
"""Words that tell nothing about what is asked. `isn't` is seen as `isn` and `t`, hence such pieces."""

_SHORTEST, _LONGEST = 4, 24
"""Letters of a word that is corrected."""

_WORD = re.compile(r"[^\W_]+")


def plain(text: str) -> str:
    """Lower case without accents and ornaments, so that `Überweisung` and `uberweisung` are one word."""
    folded = unicodedata.normalize("NFKD", text).casefold()  # first, because ornamental capitals have no lower case
    return "".join(c for c in unicodedata.normalize("NFKD", folded) if not unicodedata.combining(c))


def split_words(text: str) -> list[str]:
    """The words of a text as they stand there, in order; punctuation, symbols and underscores are no part of any."""
    return _WORD.findall(text)


class Vocabulary:
    """The words of some texts, and the corrections that lead to them."""

    def __init__(self, texts: Iterable[str]) -> None:
        counts = Counter(word for text in texts for word in split_words(plain(text)))
        self._known = frozenset(counts)
        # The more frequent word comes later and wins a shared form; the word itself breaks ties.
        by_count = sorted(counts, key=lambda word: (counts[word], word))
        self._shortened = {form: word for word in by_count if len(word) >= _SHORTEST for form in _shorter(word)}

    def correct(self, text: str) -> str:
        """The text in plain lower case, each mistyped word replaced by the known one that was most likely meant."""
        return _WORD.sub(lambda found: self._meant(found[0]), plain(text))

    def known(self, text: str) -> float:
        """The share of the words of a corrected text, common ones aside, that are known; 0 where there are none."""
        telling = [word for word in split_words(text) if word not in COMMON_WORDS]
        return sum(word in self._known for word in telling) / len(telling) if telling else 0.0

    def _meant(self, word: str) -> str:
        if word in self._known or word in COMMON_WORDS or not _SHORTEST <= len(word) <= _LONGEST:
            return word
        if word in self._shortened:
            return self._shortened[word]  # a letter is missing
        forms = _shorter(word)
        if added := [form for form in forms if len(form) >= _SHORTEST and form in self._known]:
            return added[0]
        meant = (self._shortened.get(form, "") for form in forms)
        return next((other for other in meant if len(other) == len(word)), word)  # replaced or swapped


def _shorter(word: str) -> list[str]:
    """Every form of a word with one letter deleted."""
    return [word[:n] + word[n + 1 :] for n in range(len(word))]
