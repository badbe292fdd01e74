"""What a quantity counts or measures: `m/s`, `square feet`, `dollars`, `red apples`.

Units are compared, never converted: 500 cents are not taken for 5 dollars. A noun is a unit if it is a plural, or
stands with the number 1, or in parentheses; any other word beside a number makes it doubtful.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from envs.answers.words import DENYING, is_doubtful, listed

__all__ = ["CURRENCIES", "PERCENT", "Unit", "agree", "read_unit"]

_KNOWN = {
    "percent": "% percent pct",
    "degree": "\\degree degree degrees deg",
    "celsius": "celsius centigrade",
    "fahrenheit": "fahrenheit",
    "kelvin": "K kelvin kelvins",
    "dollar": "$ dollar dollars USD usd bucks US$",
    "cent": "¢ cent cents",
    "euro": "€ euro euros EUR",
    "sterling": "£ GBP quid",
    "pound": "pound pounds",
    "lb": "lb lbs",
    "yen": "¥ yen JPY",
    "rupee": "₹ rupee rupees Rs INR",
    "won": "₩ won KRW",
    "franc": "CHF franc francs",
    "ruble": "₽ RUB ruble rubles",
    "peso": "₱ peso pesos",
    "shekel": "₪ shekel shekels",
    "naira": "₦ naira",
    "lira": "₺ lira",
    "baht": "฿ baht",
    "dong": "₫ dong",
    "hryvnia": "₴ hryvnia",
    "meter": "m meter meters metre metres",
    "millimeter": "mm millimeter millimeters millimetre millimetres",
    "centimeter": "cm centimeter centimeters centimetre centimetres",
    "decimeter": "dm decimeter decimeters decimetre decimetres",
    "kilometer": "km kilometer kilometers kilometre kilometres",
    "micrometer": "um micrometer micrometers micron microns",
    "nanometer": "nm nanometer nanometers nanometre nanometres",
    "inch": "in inch inches",
    "foot": "ft foot feet",
    "yard": "yd yds yard yards",
    "mile": "mi mile miles",
    "hectare": "ha hectare hectares",
    "acre": "acre acres",
    "gram": "g gram grams gramme grammes",
    "kilogram": "kg kgs kilo kilos kilogram kilograms",
    "ton": "ton tons tonne tonnes",
    "ounce": "oz ounce ounces",
    "liter": "l L liter liters litre litres",
    "milliliter": "ml mL milliliter milliliters millilitre millilitres",
    "gallon": "gal gallon gallons",
    "quart": "qt quart quarts",
    "pint": "pint pints",
    "cup": "cup cups",
    "tablespoon": "tbsp tablespoon tablespoons",
    "teaspoon": "tsp teaspoon teaspoons",
    "second": "s sec secs second seconds",
    "minute": "min mins minute minutes",
    "hour": "h hr hrs hour hours",
    "day": "day days",
    "week": "week weeks",
    "month": "month months",
    "year": "yr yrs year years",
    "newton": "N newton newtons",
    "joule": "J joule joules",
    "watt": "W watt watts",
    "volt": "V volt volts",
    "ampere": "A amp amps ampere amperes",
    "ohm": "ohm ohms \\Omega",
    "pascal": "Pa pascal pascals",
    "hertz": "Hz hertz",
    "mole": "mol mole moles",
    "coulomb": "C coulomb coulombs",
    "electronvolt": "eV electronvolt electronvolts",
    "calorie": "cal calorie calories",
    "kilocalorie": "kcal kilocalorie kilocalories",
    "watthour": "Wh",
    "farad": "F farad farads",
    "byte": "byte bytes",
    "bit": "bit bits",
    "radian": "rad radian radians",
    "unit": "unit units",
    "mph": "mph",
    "kph": "kph kmh",
}
_PREFIXES = {
    "n": "nano", "u": "micro", "m": "milli", "c": "centi", "d": "deci", "k": "kilo", "M": "mega",
    "G": "giga", "T": "tera",
}  # fmt: skip
_SYMBOLS = {
    "m": "meter", "g": "gram", "s": "second", "L": "liter", "l": "liter", "N": "newton", "J": "joule", "W": "watt",
    "V": "volt", "A": "ampere", "Pa": "pascal", "Hz": "hertz", "mol": "mole", "C": "coulomb", "eV": "electronvolt",
    "T": "tesla", "F": "farad", "Wh": "watthour", "B": "byte", "cal": "calorie", "bit": "bit", "ohm": "ohm",
}  # fmt: skip
_NAMES = {f"{prefix}{sign}": f"{name}{unit}" for prefix, name in _PREFIXES.items() for sign, unit in _SYMBOLS.items()}
_NAMES |= {
    f"{name}{unit}{end}": f"{name}{unit}"
    for name in _PREFIXES.values()
    for unit in _SYMBOLS.values()
    for end in ("", "s")
}
_NAMES |= {name: unit for unit, names in _KNOWN.items() for name in names.split()}
_COMPOSED = {"mph": (("mile", 1), ("hour", -1)), "kph": (("kilometer", 1), ("hour", -1))}
# A pound is money or a weight; the signs of the two are not each other's.
_AMBIGUOUS = {"pound": ("sterling", "lb")}

CURRENCIES = "$€£¥₹₩₽₱₪₦₺฿₫₴"
"""Signs that may stand before a number."""
PERCENT = (("percent", 1),)
"""The factors of percent."""

_IRREGULAR = {
    "people": "person", "children": "child", "men": "man", "women": "woman", "mice": "mouse", "geese": "goose",
    "teeth": "tooth", "dice": "die", "oxen": "ox", "fish": "fish", "sheep": "sheep", "deer": "deer", "fruit": "fruit",
    "vertices": "vertex", "indices": "index", "matrices": "matrix",
}  # fmt: skip
_MULTIPLIERS = frozenset(["pair", "couple", "dozen", "gross", "score", "set", "percentage"])
_AFTERTHOUGHTS = frozenset(
    listed(
        """
        left each total altogether remaining old long tall high wide deep away apart
        """
    )
)
_NO_UNITS = frozenset(
    listed(
        """
        pi sqrt sin cos tan cot sec csc ln log exp infinity inf theta alpha beta e i x y z
        """
    )
)
_WORD = re.compile(
    r"\s*(?:([A-Za-z][A-Za-z'-]*\.?|\\degree|\\Omega|[%$€£¥₹₩¢₽₱₪₦₺฿₫₴])|(\^\s*\{?\s*(-?[1-9])\s*\}?)|(\\cdot|\*)|(/))"
)


@dataclass(frozen=True)
class Unit:
    """Factors with their powers, and what describes them (`red` in `red apples`)."""

    factors: tuple[tuple[str, int], ...]
    """(name, power), sorted by name."""
    description: frozenset[str] = frozenset()
    """Other words of the phrase; where both sides have some, one side's must hold the other's."""
    multiplies: bool = False
    """Whether the number is another one without it, as with pairs."""


def agree(one: Unit, other: Unit) -> bool:
    """Whether two units are the same.

    >>> agree(read_unit("meters per second", 5), read_unit("m/s", 5))
    True
    """
    if one.description - other.description and other.description - one.description:
        return False
    mine, yours = dict(one.factors), dict(other.factors)
    for name, meanings in _AMBIGUOUS.items():
        for these, those in ((mine, yours), (yours, mine)):
            if name in these and name not in those:
                meant = next((meaning for meaning in meanings if meaning in those), name)
                these[meant] = these.pop(name)
    return mine == yours


def read_unit(phrase: str, number: object, *, enclosed: bool = False) -> Unit | None:
    """The unit that a phrase after a number names, or `None` where it may say something else.

    Args:
        phrase: plain text.
        number: the value before it; 1 takes a singular.
        enclosed: whether the phrase stands in parentheses, where any noun is taken for a unit.
    """
    phrase = re.sub(r"\s+in (?:total|all)$", "", f" {phrase.strip()}")
    phrase = re.sub(r"\\degree\s*([CFK])(?![A-Za-z])", _temperature, phrase)
    phrase = re.sub(r"\bdegrees? (?=celsius|fahrenheit|centigrade)", "", phrase, flags=re.IGNORECASE)
    phrase = re.sub(r"\bper ?cent\b", "percent", phrase)
    phrase = re.sub(r"\b(?:an?) (?=hour|minute|second|day|week|month|year)|\bper\b", "/ ", phrase)
    parts = _words(phrase)
    if parts is None:
        return None
    powers: dict[str, int] = {}
    described: set[str] = set()
    multiplies = False
    for place, words in enumerate(parts):
        found = _factor(words, singular=place > 0 or enclosed or number in (1, -1))
        if found is None:
            return _counted(phrase) if enclosed else None
        for name, power in found.factors:
            powers[name] = powers.get(name, 0) + (-power if place else power)
        described |= found.description
        multiplies |= found.multiplies
    factors = tuple(sorted((name, power) for name, power in powers.items() if power))
    return Unit(factors, frozenset(described), multiplies)


def _temperature(found: re.Match[str]) -> str:
    return {"C": "celsius", "F": "fahrenheit", "K": "kelvin"}[found[1]]


def _words(phrase: str) -> list[list[tuple[str, int]]] | None:
    """Words with their powers, divided at the slashes; at most one slash, or `a/b/c` would be open."""
    parts: list[list[tuple[str, int]]] = [[]]
    position = 0
    while position < len(phrase):
        found = _WORD.match(phrase, position)
        if found is None:
            return None
        position = found.end()
        word, raised, power, times, slash = found.groups()
        if times and position == len(phrase):
            return None
        if word:
            parts[-1].append((word, 1))
        elif raised:
            if not parts[-1]:
                return None
            parts[-1][-1] = (parts[-1][-1][0], int(power))
        elif slash:
            parts.append([])
    return parts if len(parts) <= 2 and all(parts[1:]) else None


def _counted(remark: str) -> Unit | None:
    """What a remark in parentheses says is counted: anything that does not deny or change the number."""
    words = re.findall(r"[a-z]+", remark.lower())
    if not re.fullmatch(r"[A-Za-z ,'-]+", remark) or DENYING.intersection(words) or not any(map(_is_word, words)):
        return None
    return Unit((("-".join(map(_singular, words)), 1),))


def _is_word(word: str) -> bool:
    return len(word) > 2


def _factor(words: list[tuple[str, int]], *, singular: bool) -> Unit | None:
    while words and words[-1][0].lower() in _AFTERTHOUGHTS and words[-1][0].lower() not in _NAMES:
        words = words[:-1]
    if not words:
        return Unit(())
    plain = [(word.rstrip(".") if len(word) > 1 else word, power) for word, power in words]
    measured = _measure(plain)
    if measured is not None:
        # Seven K may be seven thousand.
        return Unit(tuple(measured), multiplies=words == [("K", 1)])
    names = [word.lower() for word, _ in plain]
    if any(power != 1 for _, power in plain) or any(len(name) < 2 and name not in ("a",) for name in names):
        return None
    if names[:2] in (["of", "a"], ["of", "an"]):
        plain, names = plain[2:], names[2:]
    if not names or names[0] == "of" or names[-1] == "of" or not all(name[0].isalpha() for name in names):
        return None
    head = names.index("of") - 1 if "of" in names[1:] else len(names) - 1
    others = [
        name for place, name in enumerate(names) if place != head and name not in ("of", "the", "a", "an", "more")
    ]
    if len(names) > 6 or any(map(is_doubtful, [names[head], *others])) or _NO_UNITS.intersection(names):
        return None
    noun = names[head]
    known = _NAMES.get(plain[head][0]) or _NAMES.get(noun)
    lemma = known or _singular(noun)
    if not (known or singular or _is_plural(noun)):
        return None
    return Unit(((lemma, 1),), frozenset(map(_singular, others)), lemma in _MULTIPLIERS)


def _measure(words: list[tuple[str, int]]) -> list[tuple[str, int]] | None:
    """Factors of a phrase made of known units alone, or `None`."""
    factors: list[tuple[str, int]] = []
    times = 1
    for word, power in words:
        lower = word.lower()
        if lower in ("square", "sq", "cubic", "cu") and times == 1 and not (factors and len(words) == 2):
            times = 2 if lower in ("square", "sq") else 3
            continue
        if lower in ("square", "squared", "cubed") and factors and factors[-1][1] == 1:
            factors[-1] = (factors[-1][0], 3 if lower == "cubed" else 2)
            continue
        name = _NAMES.get(word) or (_NAMES.get(lower) if len(word) > 2 else None)
        if name is None:
            return None
        factors += [(part, times * power * own) for part, own in _COMPOSED.get(name, ((name, 1),))]
        times = 1
    # Two measures side by side are a product (newton metres); of more, one is a noun, and the same twice is a slip.
    names = {name for name, _ in factors}
    if len(names) > 1 and not names.isdisjoint(("degree", "percent")):
        return None
    return factors if factors and times == 1 and len(names) == len(factors) <= 2 else None


def _is_plural(noun: str) -> bool:
    return noun in _IRREGULAR or (len(noun) > 3 and noun.endswith("s") and not noun.endswith(("ss", "us", "is")))


def _singular(noun: str) -> str:
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if noun.endswith("ies") and len(noun) > 4:
        return noun[:-3] + "y"
    if noun.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
        return noun[:-2]
    return noun[:-1] if _is_plural(noun) else noun
