"""The items of the paper in its order; `tables.py` and `figures.py` declare them.

Rows are methods with what replaces their settings; what a scale makes of sizes and sources is its own matter (`scales.py`). Every
row of EDF with a criterion or with weights has a control beside it, the same with the norm of its gradient matched.
"""

from collections.abc import Mapping, Sequence

from limbeck.reproduction.figures import FIG1A, FIG1B, FIG2, FIG4, FIG5, FIG6, FIG7, FIG8, FIG9, FIG10
from limbeck.reproduction.item import Item
from limbeck.reproduction.tables import TABLE1, TABLE2, TABLE3, TABLE4, TABLE5A, TABLE5B, TABLE6A, TABLE6B, TABLE7, TABLE9, TABLE10
from limbeck.runtime.errors import require

ITEMS: Mapping[str, Item] = {
    one.name: one
    for one in (
        *(FIG1A, FIG1B, FIG2, TABLE1, TABLE2, TABLE3, FIG4, TABLE4, TABLE5A, TABLE5B, TABLE6A, TABLE6B),
        *(FIG5, TABLE7, TABLE9, TABLE10, FIG6, FIG7, FIG8, FIG9, FIG10),
    )
}
ALL = "all"


def chosen(words: Sequence[str], key: str = "ITEM") -> list[Item]:
    """The items that are called so, in the paper's order; `all` is all of them.

    Raises:
        UsageError: for an unknown one, or none.
    """
    for word in words:
        require(word == ALL or word in ITEMS, key, word, f"one of {ALL}, {', '.join(ITEMS)}")
    require(bool(words), key, "", f"one or more of {ALL}, {', '.join(ITEMS)}")
    return [one for name, one in ITEMS.items() if ALL in words or name in words]
