"""Every test here fails when a page says an error, opens a dialogue, or asks for anything that is not its own."""

from collections.abc import Iterator

import pytest
from browser.visits import Visits


@pytest.fixture(autouse=True)
def sound(visits: Visits) -> Iterator[None]:
    yield
    assert not visits.taken()
