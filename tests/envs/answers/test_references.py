r"""References as the well-known sets write them: read at loading, equal to themselves, different from neighbours."""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction

import pytest

from envs.answers.expressions import exact_value, parse_expression
from envs.answers.reading import Quantity, Text, read
from envs.answers.references import acceptable_answers, any_of, check_reference
from envs.grading import Grader
from envs.math_tasks import load_task
from testbed.errors import ConfigError
from tests.extras import needs

# Written from memory of each set's format; every line holds references that differ from each other.
SETS = {
    "MATH": r"""
        \frac{3}{4} | \dfrac{7}{9} | \frac{243}{625} | -\frac{35}{9} | \frac{14}{3} | .35625 | -125 | 13535
        10\% | 16.6\%
        2\sqrt{3} | 3\sqrt{13} | \sqrt{51} | 2\sqrt[3]{2} | \sqrt[4]{3} | 3 - 2\sqrt{2} | \frac{1 + \sqrt{5}}{2}
        8\sqrt{3} - 4
        (3,\frac{\pi}{2}) | \left( 4, \frac{\pi}{2} \right) | (6, 31, -1) | \left(\frac{1}{2}, -\frac{3}{2}\right)
        \text{(C)} | \text{(D)} | \text{even} | \text{Evelyn} | \text{June 20} | \text{no solution} | \text{blue}
        x \in [2,5) | [0,25] | (2,\infty) | \left[ -\frac{1}{2}, \infty \right) | (-\infty, -2) \cup (3, \infty)
        x \le 3
        [3, 4) \cup (4, 5] | -2 < x < 6 | x \neq 2 | \mathbb{R} | \infty | -\infty | \emptyset | \{1, 2, 3\} | \{-1, 4\}
        5\,\text{cm}^2 | 85.5 \text{ meters} | 60 \text{ mph} | 18 \text{ square units}
        \frac{7}{20} \text{ hours} | 50^\circ
        \$18.90 | \$32,\!348 | 7,\!000 | 2516_8 | 413_5 | 4210_{5} | 6 - 5i | 2 + 3i | -i | \frac{-1 + i \sqrt{3}}{2}
        p - q | x^3+3x-6 | 4x^3 - 2x + 1 | 7(x+3)(x-3) | \frac{x+2}{7} | 12x^2y | 2a+3b | a^2+ab+b^2 | \frac{b-1}{a+b-2}
        y = 2x + 3 | x^2 + y^2 = 25 | y^2 - 4y = 8x | 3x - y = 5 | \frac{x^2}{4} + \frac{y^2}{9} = 1 | k = -1
        f(x) = x^2
        \pi | 36\pi | \frac{4}{3} \pi r^3 | \pi r^2 h | e^{\frac{\pi i}{3}} | \tan x | 2 \cos \theta | \cot x
        \log_2 3 | \ln 2
        \binom{10}{4} | 6! | (n-1)! | \lfloor \sqrt{n} \rfloor | 2^{1009} | \frac{n(n+1)}{2} | 1\frac{4}{5}
        33\frac{1}{3}\%
        \begin{pmatrix} 1/5 \\ -18/5 \end{pmatrix} | \begin{pmatrix} -2 & 1 \\ 3 & 0 \end{pmatrix} | 3, 5, 7 | 1, -2
        1 \pm \sqrt{19} | \frac{\pi}{6}, \frac{5\pi}{6} | (-1,6), (2,3) | 5.4 \text{ cents}
        0.2\overline{6}
        """,
    "ASDiv": """
        9 (apples) | 15 (cups) | 1/2 | 3 (pieces) | 8/15 (pound) | 0.75 (miles) | 6 (red candies) | 7 (years old)
        5 (slices of pie) | 40 (kg) | 60 (miles/hour) | 12 (USD) | 2 (pairs) | 10 (feet) | 1 (stick) | 130 (calories)
        4 (one-gallon bottles) | 21 (yellow) | 32 (more) | 11 (left) | 14 (times) | 26 (percent) | 2.5 (hours)
        1,250 (dollars)
        """,
    "SVAMP and MAWPS": "145.0 | 3.0 | 0.5 | 27.5 | 1000.0 | 12.25 | 33.33",
    "AMC and AIME": "025 | 007 | 113 | 900 | 0 | 999 | A | B | E",
    "olympiads": r"""
        1, 2 | x=3 | \pm 4 | x=\pm 5 | (1,1), (2,3) | n = 12 | 2^n - 1 | n^2 | \frac{1}{n+1} | $\frac{7}{2}$ | $10^{-5}$
        $x \ge 6$ | $2\sqrt{2}+1$ | $(0, 1]$ | $n(n+1)$ | \text{yes} | \text{No such number exists}
        """,
    "physics": r"""
        8.7e8 | 1.6e-19 | 6e13 | 4.5e33 | 1e11 | -3.5 | 4.49 | 3 \times 10^8 | 1.2 \times 10^{5} | 2.75e11 | 5e-7
        9.8 m/s^2
        \arcsin{1.3 \sin{\theta_w}} | x_{0} \cos (\omega t) | \frac{m v^2}{r} | 25°C | 5 kW | 12 eV | 7 N
        """,
    "GSM8K": "18 | 1,080 | 70,000 | 5 | -3 | 0 | 104",
}
REFERENCES = [
    (name, reference.strip())
    for name, lines in SETS.items()
    for line in lines.split("\n")
    for reference in line.split(" | ")
    if reference.strip()
]


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(1, seconds=30.0) as grader:
        yield grader


@pytest.mark.parametrize("name", SETS)
def test_references_are_read_and_equal_themselves(grader: Grader, name: str) -> None:
    references = [reference for owner, reference in REFERENCES if owner == name]
    rows = [{"question": f"question {number}", "answer": answer} for number, answer in enumerate(references)]
    task = load_task(rows)
    assert [problem.answer for problem in task] == references
    for form in ("#### {}", "\\boxed{{{}}}", "#### ${}$"):
        responses = [form.format(reference.strip("$")) for reference in references]
        assert [
            (reference, grade.reason)
            for reference, grade in zip(references, grader.grade_batch(responses, references), strict=True)
            if not grade.correct
        ] == []


@pytest.mark.parametrize("name", SETS)
def test_references_of_a_set_differ_from_each_other(grader: Grader, name: str) -> None:
    references = [reference for owner, reference in REFERENCES if owner == name]
    pairs = [(one, other) for one in references for other in references if one != other]
    grades = grader.grade_batch([f"\\boxed{{{one}}}" for one, _ in pairs], [other for _, other in pairs])
    assert [pair for pair, grade in zip(pairs, grades, strict=True) if grade.correct] == []


def neighbours(reference: str) -> list[str]:
    """The reference's number plus one and minus one, in its own notation where that is easy; empty if it is none."""
    reading = read(reference)
    if not isinstance(reading, Quantity) or reading.exact is None or reading.unit is not None:
        return []
    texts = [f"{reading.exact + step}" for step in (1, -1)]
    return [*texts, *(f"{text} apples" for text in texts), *(f"x = {text}" for text in texts)]


def test_numbers_differ_from_their_neighbours(grader: Grader) -> None:
    pairs = [(text, reference) for _, reference in REFERENCES for text in neighbours(reference)]
    assert len(pairs) > 200
    grades = grader.grade_batch([f"\\boxed{{{text}}}" for text, _ in pairs], [reference for _, reference in pairs])
    assert [pair for pair, grade in zip(pairs, grades, strict=True) if grade.correct] == []


def test_math_verify_agrees_about_references_that_equal_themselves(grader: Grader) -> None:
    # Another implementation: where it finds two references of MATH equal, they must be equal here, or be in doubt.
    math_verify = needs("math_verify")
    references = [reference for owner, reference in REFERENCES if owner == "MATH"]
    parsed = [math_verify.parse(f"\\boxed{{{reference}}}", parsing_timeout=None) for reference in references]
    own = [bool(math_verify.verify(each, each, timeout_seconds=None)) for each in parsed]
    assert sum(own) > 0.95 * len(references)


def random_number(generator: random.Random) -> tuple[str, Fraction]:
    """A number in a random notation, and its value by Python's own arithmetic."""
    whole, part, below = generator.randint(-999, 999), generator.randint(1, 8), 9
    power, digits = generator.randint(-40, 40), generator.randint(1, 9999)
    sign = "-" if whole < 0 else ""
    size = abs(whole)
    mixed = size + Fraction(part, below)
    value = -mixed if sign else mixed
    return generator.choice(
        [
            (f"{whole}", Fraction(whole)),
            (f"{whole}.{digits:04d}", Fraction(f"{whole}.{digits:04d}")),
            (f"{digits}e{power}", digits * Fraction(10) ** power),
            (rf"{digits}\times 10^{{{power}}}", digits * Fraction(10) ** power),
            (rf"\frac{{{whole}}}{{{below}}}", Fraction(whole, below)),
            (f"{sign}{size} {part}/{below}" if size else f"{part}/{below}", value if size else Fraction(part, below)),
            (rf"{sign}{size}\frac{{{part}}}{{{below}}}" if size else "0", value if size else Fraction(0)),
            (f"{digits:,} dollars", Fraction(digits)),
            (
                rf"{whole}.\overline{{{part}}}" if whole > 0 else "1",
                whole + Fraction(part, 9) if whole > 0 else Fraction(1),
            ),
            (f"{digits} thousand", Fraction(digits * 1000)),
        ]
    )


def test_random_numbers_are_equal_exactly_where_their_values_are() -> None:
    generator = random.Random(12)
    numbers = [random_number(generator) for _ in range(400)]
    # Neighbours in value, which random pairs hardly ever are.
    numbers += [(f"{value.numerator}/{value.denominator}", value) for _, value in numbers[:100]]
    numbers += [(f"{(value + 1).numerator}/{(value + 1).denominator}", value + 1) for _, value in numbers[:100]]
    grader = Grader()
    for text, value in numbers:
        check_reference(text)
        others = [numbers[generator.randrange(len(numbers))] for _ in range(20)] + [(text, value)]
        grades = grader.grade_batch([f"\\boxed{{{text}}}"] * len(others), [other for other, _ in others])
        assert [grade.correct for grade in grades] == [value == other for _, other in others]


def random_tree(generator: random.Random, depth: int) -> tuple[str, Fraction | None]:
    """A random expression in LaTeX and its value, `None` where it divides by zero."""
    if depth == 0:
        value = generator.randint(0, 9)
        return str(value), Fraction(value)
    (left, a), (right, b) = random_tree(generator, depth - 1), random_tree(generator, depth - 1)
    if a is None or b is None:
        return left, None
    return generator.choice(
        [
            (f"({left})+({right})", a + b),
            (f"({left})-({right})", a - b),
            (rf"({left})\cdot({right})", a * b),
            (f"({left})({right})", a * b),
            (rf"\frac{{{left}}}{{{right}}}", a / b if b else None),
            (f"-({left})", -a),
            (f"({left})^2", a**2),
            (f"{{{left}}}^{{-1}}", 1 / a if a else None),
        ]
    )


def test_expressions_have_the_value_that_python_gives_them() -> None:
    generator = random.Random(7)
    known = 0
    for _ in range(500):
        text, value = random_tree(generator, generator.randint(1, 4))
        if value is not None:
            known += 1
            assert exact_value(parse_expression(text)) == value
    assert known > 300


# -- what cannot be a reference ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("NaN", "expected a value"),
        ("null", "expected a value"),
        (r"\frac{1}{", "cannot be read as mathematics"),
        (r"\frac{1}{0}", "cannot be read as mathematics"),
        ("3+", "cannot be read as mathematics"),
        ("((2)", "cannot be read as mathematics"),
        ("???", "cannot be read as mathematics"),
        (r"\unknown{3}", "cannot be read as mathematics"),
        ("1e999999", "cannot be read as mathematics"),
        ("1/2x", "in more than one way"),
        ("13 is not the answer", "in more than one way"),
        ("2010_2", "in more than one way"),
        ("14=13", "different numbers are equal"),
        ("a\x00b", "cannot be printed"),
        ("x\ufffd", "cannot be printed"),
        ("9" * 1001, "1,001 characters; expected at most 1,000"),
        ('{"any of": []}', "expected a list of texts"),
        ('{"any of": [1]}', "expected a list of texts"),
        ('{"any of": ["1"', "no list of acceptable answers"),
        ('{"any of": ["1", "3+"]}', "cannot be read as mathematics"),
    ],
)
def test_rejects_references(reference: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_reference(reference)


def test_any_of_is_one_text_and_back() -> None:
    reference = any_of(["1/2", 'a "half"', "½"])
    assert acceptable_answers(reference) == ("1/2", 'a "half"', "½")
    with pytest.raises(ConfigError, match="itself a list"):
        any_of([reference])
    with pytest.raises(ConfigError, match="expected a list of texts"):
        any_of("1/2")


def test_unreadable_text_equals_only_itself(grader: Grader) -> None:
    assert isinstance(read(r"\unknown{3}"), Text)
    assert grader.grade(r"\boxed{\unknown{3}}", r"\unknown{3}").correct
    assert grader.grade(r"\boxed{3}", r"\unknown{3}").reason == "different"
