"""Shares of work for processes that never meet: those of a queue, of several machines."""

import re
from dataclasses import dataclass

from limbeck.runtime.errors import require


@dataclass(frozen=True, slots=True)
class Shard:
    """The items number, number + count, … of all: one of `count` shares, `number` from 1."""

    number: int = 1
    count: int = 1

    @staticmethod
    def parse(text: str) -> "Shard":
        """`2/4`, the second of four.

        Raises:
            UsageError: for anything else.
        """
        matched = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        require(matched is not None and 1 <= int(matched[1]) <= int(matched[2]), "--shard", text, "of the form i/n with 1 ≤ i ≤ n")
        assert matched is not None
        return Shard(int(matched[1]), int(matched[2]))

    def takes(self, number: int) -> bool:
        """Whether the item of that number (from 0) is among them."""
        return number % self.count == self.number - 1

    def of(self, total: int) -> list[int]:
        """The numbers of its items among 0, …, total − 1."""
        return list(range(self.number - 1, total, self.count))
