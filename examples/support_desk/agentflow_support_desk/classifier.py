"""Tells what a ticket is about, and how sure it is.

Words and word pairs (what is said) and runs of two to four characters (which survive an unknown ending) are weighed by
TF-IDF and given to one multinomial logistic regression. Four things around it make its confidence worth a threshold:

*Spelling.* Mistyped words are first corrected towards the words of the examples (`agentflow_support_desk.words`).

*Views.* A long ticket is looked at as a whole and in stretches of about a dozen words, and the surest view counts.
Otherwise a question wrapped in a story about the weather drowns in the story.

*Known words.* A linear model is as sure about "where is my card" as about "where is my umbrella" once `umbrella` has
been dropped as unknown. The share of telling words that were seen in training is therefore part of the confidence.

*Calibration.* `confidence = sigmoid(1.9 * logit(p) + 3.3 * known - 0.8)`, where `p` is the probability of the best
intent in the surest view. The factors were fitted once, so that the confidence is the chance that the answer is right:
on cross-validated examples of this folder (with the articles' titles) and on banking77 (Casanueva et al. 2020) with 12
intents x 15, 60 x 30 and 77 x 30 examples; plain, with typing errors and wrapped in small talk; against sentences
about other things. The offset supposes that two tickets in three are about one of the intents. The labelled tickets
took no part in any of this. The three numbers are not learned again by each training, which would need more than 15
examples an intent.

Known limits: a question about the bank that belongs to no intent looks much like one that does, and about half of
these are answered; other languages than that of the examples are passed on, not understood; a story that never names
the thing it is about is passed on too.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from agentflow_support_desk.errors import EmptyTextError, MissingExtraError, TrainingError
from agentflow_support_desk.words import Vocabulary, plain, split_words

ANSWER_FROM = 0.5
"""From this confidence upwards a ticket is answered; below it a person takes over."""

_READ_CHARACTERS = 1_000
"""Only the beginning of a ticket is read: what it is about is said there, and time stays bounded."""

_VIEW_WORDS = 12
"""How many words a stretch of a long ticket has, about one clause."""

_PROBABILITY, _KNOWN, _OFFSET = 1.9, 3.3, -0.8
"""The calibration; see the top of the module."""

_PAUSE = re.compile(r"[.!?;:,\n]+|\s[-–—]\s")


@dataclass(frozen=True, slots=True)
class Classification:
    """What a ticket is about."""

    intent: str
    """The most probable intent, one of those in the examples."""

    confidence: float
    """The chance, from 0 to 1, that `intent` is right; compare it with `ANSWER_FROM`."""

    runner_up: str
    """The second most probable intent."""

    margin: float
    """How far the best is ahead of the second: the difference of their probabilities, from 0 to 1."""


class _Matrix(Protocol):
    def tolist(self) -> list[list[float]]: ...


class _Model(Protocol):
    """The part of a scikit-learn pipeline that is used here; scikit-learn comes without types."""

    def predict_proba(self, texts: list[str]) -> _Matrix: ...


class Classifier:
    """Learned from labelled examples; made by `train`, never changed afterwards. Equal examples give equal answers."""

    def __init__(self, model: _Model, intents: tuple[str, ...], vocabulary: Vocabulary) -> None:
        self._model = model
        self._vocabulary = vocabulary
        self.intents = intents
        """The intents of the examples, sorted."""

    @classmethod
    def train(cls, examples: Iterable[tuple[str, str]]) -> Self:
        """Learn from (text, intent) pairs.

        Takes about 0.1 s for 180 examples and 3 s for 2,300, and a second or two once to load scikit-learn. Raises
        `TrainingError` for fewer than two intents or an example without words, and `MissingExtraError` where
        scikit-learn is not installed.
        """
        pairs = list(examples)
        intents = check_examples(pairs)
        vocabulary = Vocabulary(text for text, _ in pairs)
        return cls(_fit(pairs, vocabulary), intents, vocabulary)

    def classify(self, text: str) -> Classification:
        """Say what `text` is about; takes one to three milliseconds. Raises `EmptyTextError` where there is no text."""
        if not text.strip():
            raise EmptyTextError
        views = _views(self._vocabulary.correct(text.strip()[:_READ_CHARACTERS]))
        rows = self._model.predict_proba(views).tolist()
        surest = max(range(len(rows)), key=lambda n: max(rows[n]))
        known = self._vocabulary.known(views[surest])
        ranked = sorted(zip(rows[surest], self.intents, strict=True), key=lambda pair: (-pair[0], pair[1]))
        (best, intent), (second, runner_up) = ranked[0], ranked[1]
        return Classification(intent, round(_confidence(best, known), 6), runner_up, round(best - second, 6))


def check_examples(examples: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The intents of (text, intent) pairs that can be trained on, sorted; needs no scikit-learn.

    Raises `TrainingError` for fewer than two intents or an example without words.
    """
    intents = tuple(sorted({intent for _, intent in examples}))
    if len(intents) < 2:
        raise TrainingError(f"{len(examples)} examples of {len(intents)} intents", "examples of two or more intents")
    for text, intent in examples:
        if not split_words(plain(text)):
            raise TrainingError(f"{text!r} as an example of {intent!r}", "at least one word in every example")
    return intents


def _fit(pairs: list[tuple[str, str]], vocabulary: Vocabulary) -> _Model:
    try:
        import numpy
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline, make_union
    except ImportError as error:
        raise MissingExtraError("scikit-learn", extra="classifier") from error
    single = numpy.float32  # half the work, and no difference in any figure measured
    words = TfidfVectorizer(
        lowercase=False,
        tokenizer=split_words,
        token_pattern=None,
        ngram_range=(1, 2),
        sublinear_tf=True,
        dtype=single,
    )
    runs = TfidfVectorizer(lowercase=False, analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, dtype=single)
    pipeline = make_pipeline(make_union(words, runs), LogisticRegression(C=10.0, max_iter=500))
    pipeline.fit([vocabulary.correct(text) for text, _ in pairs], [intent for _, intent in pairs])
    model: _Model = pipeline
    return model


def _confidence(probability: float, known: float) -> float:
    """The calibrated chance that the best intent is right; neither 0 nor 1 as a probability overflows."""
    inside = min(max(probability, 1e-6), 1 - 1e-6)
    return 1 / (1 + math.exp(-(_PROBABILITY * math.log(inside / (1 - inside)) + _KNOWN * known + _OFFSET)))


def _views(text: str) -> list[str]:
    """The whole text, followed by its stretches where there is more than one."""
    stretches: list[list[str]] = []
    current: list[str] = []
    for clause in _PAUSE.split(text):
        words = clause.split()
        if current and len(current) + len(words) > _VIEW_WORDS:
            stretches.append(current)
            current = []
        current = current + words
        while len(current) > _VIEW_WORDS * 3 // 2:  # a clause without a pause: overlapping pieces
            stretches.append(current[:_VIEW_WORDS])
            current = current[_VIEW_WORDS // 2 :]
    if current:
        stretches.append(current)
    parts = [" ".join(words) for words in stretches]
    return [text, *parts] if len(parts) > 1 else [text]
