"""Ranks that the tests of a module share."""

from collections.abc import Iterator

import pytest
from together import Team


@pytest.fixture(scope="module")
def two() -> Iterator[Team]:
    with Team(2) as team:
        yield team


@pytest.fixture(scope="module")
def three() -> Iterator[Team]:
    with Team(3) as team:
        yield team


@pytest.fixture(scope="module")
def four() -> Iterator[Team]:
    with Team(4) as team:
        yield team
