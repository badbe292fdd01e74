"""The plugin that pytest loads by its entry point: a fixture that judges a loss, its marker and its options.

    @pytest.mark.objective("dapo", clip_high=0.3)
    def test_my_loss(judge_loss):
        judge_loss(my_loss)

fails unless the loss is that objective and keeps the laws of `assert_lawful`. Without the marker the laws alone count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from testbed.testing.losses import AnyLoss

LARGEST_RTOL = 1e-2
"""A test with a tolerance above this accepts losses that differ."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the options of `judge_loss`."""
    group = parser.getgroup("losses", "losses beside published objectives (fixture judge_loss)")
    group.addoption(
        "--loss-rtol",
        type=float,
        default=1e-6,
        metavar="R",
        help="difference from the objective that is allowed, relative to the largest entry (default 1e-6)",
    )
    group.addoption(
        "--loss-strict",
        action="store_true",
        help="losses also have to detach their constants and stay finite whatever they are given",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and refuse a tolerance that accepts everything."""
    config.addinivalue_line(
        "markers",
        "objective(name, except_for=(), **hyper_parameters): the objective that judge_loss compares with, and the laws "
        "that the loss is not meant to keep; without a name the laws alone count",
    )
    rtol = config.getoption("--loss-rtol")
    if not 0 < rtol <= LARGEST_RTOL:
        raise pytest.UsageError(f"--loss-rtol is {rtol:g}; expected a number in (0, {LARGEST_RTOL:g}]")


@pytest.fixture
def judge_loss(request: pytest.FixtureRequest) -> Callable[[AnyLoss], None]:
    """Judges a loss: it has to be the objective that the test is marked with, and to keep the laws."""
    marker = request.node.get_closest_marker("objective")
    name, except_for, hyper_parameters = _marked(*marker.args, **marker.kwargs) if marker else (None, (), {})
    rtol, strict = request.config.getoption("--loss-rtol"), request.config.getoption("--loss-strict")

    def judge(loss: AnyLoss) -> None:
        from testbed.objectives import make_objective
        from testbed.testing import assert_conforms, assert_lawful, exempt_laws

        exempt = tuple(except_for)
        if name is not None:
            objective = make_objective(name, **hyper_parameters)
            assert_conforms(loss, objective, rtol=rtol)
            exempt += tuple(exempt_laws(objective))
        assert_lawful(loss, except_for=exempt, strict=strict)

    return judge


def _marked(
    name: str | None = None, *, except_for: tuple[str, ...] = (), **hyper_parameters: Any
) -> tuple[str | None, tuple[str, ...], dict[str, Any]]:
    return name, except_for, hyper_parameters
