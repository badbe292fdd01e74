"""Numbers in English words, words that scale a number, and words after which a number no longer says what it says."""

from __future__ import annotations

from fractions import Fraction

__all__ = ["DENYING", "DOUBTFUL", "PARTS", "SCALES", "is_doubtful", "listed", "number_in_words"]


def listed(words: str) -> list[str]:
    """The words of a text, for tables that are read more easily as prose."""
    return words.split()


_ONES = dict(
    zip(
        listed(
            """
        zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
        seventeen eighteen nineteen
        """
        ),
        range(20),
        strict=True,
    )
)
_TENS = dict(
    zip(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], range(20, 100, 10), strict=True)
)

SCALES = {
    **{
        f"{name}{end}": value
        for name, value in {
            "hundred": 100,
            "thousand": 10**3,
            "million": 10**6,
            "billion": 10**9,
            "trillion": 10**12,
            "dozen": 12,
        }.items()
        for end in ("", "s")
    },
}
"""Words that multiply the number before them."""

PARTS = {
    **{
        f"{name}{end}": Fraction(1, value)
        for name, value in {
            "half": 2,
            "third": 3,
            "fourth": 4,
            "quarter": 4,
            "fifth": 5,
            "sixth": 6,
            "seventh": 7,
            "eighth": 8,
            "ninth": 9,
            "tenth": 10,
            "eleventh": 11,
            "twelfth": 12,
            "sixteenth": 16,
            "twentieth": 20,
            "hundredth": 100,
            "thousandth": 1000,
        }.items()
        for end in ("", "s")
    },
    "halves": Fraction(1, 2),
}
"""Names of fractions: `3 fifths`. Three quarters, where they are coins, are no three either."""

DOUBTFUL = frozenset(
    listed(
        """
        no not none never neither nor without except but instead rather unless false wrong incorrect untrue mistaken
        invalid is isn are was were be been being am has have had does do did can cannot could would
        should will won may might must seems fails works gives equals makes remains becomes misses loses
        contradicts looks means it its this that these those there they he she we you i or and to of than less lesser
        fewer below under minus negative negatives plus above over between from until upto about approximately approx
        around roughly nearly almost circa maybe perhaps possibly probably guess unknown unsure half halves
        quarter quarters double doubles doubled twice thrice triple triples tripled quadruple once times squared
                square cubed power powers root roots inverse inverses reciprocal reciprocals opposite opposites
        factorial mod modulo base         tens units ones percent percentage k mil mio pm am noon midnight th st nd
        rd if when since because as yes         hundredths thousandths quadrillion quadrillions crore crores lakh
        lakhs gross score scores myriad myriads         zillions
        """
    )
)
"""A number with one of these beside it may be another number, an estimate, or not the answer at all."""

DENYING = frozenset(
    listed(
        """
        no not none never neither nor without except but instead unless false wrong incorrect untrue mistaken invalid
        is isn was were minus negative plus about approximately approx around roughly nearly almost maybe perhaps
        guess mod modulo base half quarter hundred hundreds thousand thousands million millions billion billions or
        and below under squared cubed
        """
    )
)
"""The same for a number with a remark in parentheses, which otherwise names what is counted."""


_WORDS_IN_THS = frozenset(
    listed("months paths baths moths cloths booths deaths births widths lengths depths truths youths mouths")
)


def is_doubtful(word: str) -> bool:
    """Whether a word beside a number may change what it says.

    That are also all fractions, all multiples (`13 fives`) and all contractions (`isn't`).

    >>> [word for word in ("apples", "fourteenths", "months", "sixes", "wrong") if is_doubtful(word)]
    ['fourteenths', 'sixes', 'wrong']
    """
    single = word[:-2] if word.endswith("xes") else word[:-1] if word.endswith("s") else word
    counts = single in _ONES or single in _TENS or (word.endswith("ties") and f"{word[:-3]}y" in _TENS)
    return word in DOUBTFUL or "'" in word or counts or (word.endswith("ths") and word not in _WORDS_IN_THS)


def number_in_words(words: list[str]) -> Fraction | None:
    """The whole number or simple fraction that English words say, or `None`.

    >>> [number_in_words(text.split()) for text in ("forty two", "two hundred and five", "three fifths", "no five")]
    [Fraction(42, 1), Fraction(205, 1), Fraction(3, 5), None]
    """
    if words and words[0] in ("a", "an"):
        return number_in_words(["one", *words[1:]]) if len(words) == 2 and words[1] in {**PARTS, **SCALES} else None
    if len(words) > 1 and words[-1] in PARTS:
        count = number_in_words(words[:-1])
        return None if count is None or count.denominator > 1 else count * PARTS[words[-1]]
    total = group = 0
    last = ""
    for place, word in enumerate(words):
        if word in _ONES:
            # "twenty one" and "hundred one", but not "one two" or "ten five".
            if last and last not in _TENS and last not in SCALES and last != "and":
                return None
            if last in _TENS and not 0 < _ONES[word] < 10:
                return None
            group += _ONES[word]
        elif word in _TENS:
            if last and last not in SCALES and last != "and":
                return None
            group += _TENS[word]
        elif word == "dozen" and group and place == len(words) - 1 and last != "and":
            group *= 12
        elif word == "hundred" and 0 < group < 100 and last != "and":
            group *= 100
        elif word in ("thousand", "million", "billion", "trillion") and group and last != "and":
            # Scales fall from left to right.
            if total and total % (SCALES[word] * 1000):
                return None
            total, group = total + group * SCALES[word], 0
        elif word == "and" and last in SCALES and place < len(words) - 1:
            pass
        else:
            return None
        last = word
    return Fraction(total + group) if words else None
