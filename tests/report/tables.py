"""What stands in the tables of pages."""

from limbeck.report.collection import Collection
from limbeck.report.sortable import SortableTable, Value


def table(shown: Collection, name: str) -> SortableTable:
    return next(one for one in shown.tables if one.name == name)


def cells(table: SortableTable, title: str) -> list[Value]:
    """A column."""
    number = [column.title for column in table.columns].index(title)
    return [row.cells[number] for row in table.rows]
