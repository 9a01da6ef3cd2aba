"""Results as JSON holds them: what tests look at is then also what files have."""

from collections.abc import Callable
from typing import Any

from limbeck.runtime.fingerprint import plain


def in_json(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, its result in JSON's types."""
    return lambda *arguments, **named: plain(function(*arguments, **named))
