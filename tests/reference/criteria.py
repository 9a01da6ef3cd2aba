"""What the dropout criteria drop, in plain loops over Python numbers."""

import math
from fractions import Fraction


def share(ratio: float, count: int) -> int:
    """⌊α · count⌋."""
    return math.floor(Fraction(str(ratio)) * count)


def by_loss(losses: list[float], ratio: float, side: str) -> set[int]:
    """The lowest or highest losses, of equal ones the earlier."""
    left, dropped = list(range(len(losses))), set()
    for _ in range(share(ratio, len(losses))):
        extreme = (min if side == "low" else max)(losses[p] for p in left)
        worst = next(p for p in left if losses[p] == extreme)
        left.remove(worst)
        dropped.add(worst)
    return dropped


def by_depth(sizes: list[int], ratio: float, where: str) -> set[int]:
    """Whole layers of those sizes from the first on, from the last back or from the middle outwards, the last of them in part."""
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    if where == "first":
        order = list(range(len(sizes)))
    elif where == "last":
        order = list(reversed(range(len(sizes))))
    else:
        below = (len(sizes) - 1) // 2
        above = below if len(sizes) % 2 else below + 1
        order = []
        while below >= 0:
            order += [below] if below == above else [below, above]
            below, above = below - 1, above + 1
    dropped: set[int] = set()
    missing = share(ratio, sum(sizes))
    for layer in order:
        taken = min(missing, sizes[layer])
        dropped |= set(range(starts[layer], starts[layer] + taken))
        missing -= taken
    return dropped
