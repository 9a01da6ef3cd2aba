"""The files of a reproduction: JSON, Markdown, a figure, and where pyarrow is there the rows as parquet."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from limbeck.accuracy import Accuracy
from limbeck.figures.reproduction import areas_sheet, item_figure
from limbeck.figures.style import png
from limbeck.reproduction.items import ITEMS
from limbeck.reproduction.measures import PICTURES
from limbeck.reproduction.results import FILE, ITEM, REPRODUCTION, ItemResult, Reproduction
from limbeck.reproduction.values import PLAIN, title_of
from limbeck.runtime.files import read_tensors, write_bytes, write_json, write_text


def write(found: Reproduction, whole: Reproduction, folder: Path) -> Reproduction:
    """Write the files of what was found; the same with their paths.

    Args:
        found: the items that were asked for.
        whole: with those that the folder has from before, of which `reproduction.json` tells.
        folder: where to.
    """
    paths = {"cells": str(folder / "cells")}
    for one in found.items:
        for name, path in _write_item(one, folder):
            paths[f"{one.item} {name}" if len(found.items) > 1 else name] = str(path)
    write_json(folder / FILE, whole, REPRODUCTION)
    write_text(folder / "reproduction.md", whole.markdown)
    return replace(found, paths={**paths, "reproduction": str(folder / FILE)})


def figure_of(one: ItemResult) -> Any:
    """The figure of an item, ours beside what is published; None where nothing is known of it."""
    theirs = {f"{row.row}, {row.dataset}" + (f", ipc {row.ipc}" if row.ipc else ""): row.mean for row in one.published}
    first, *more = (_of_rows(one, value) for value in _drawn(one))
    return item_figure(*first, one.series, theirs, more)


def _drawn(one: ItemResult) -> list[str]:
    """Of what stands in the item's table the first, and what else its claims are about."""
    claimed = {at.value for claim in ITEMS[one.item].claims for part in claim.parts for _, at in part.terms}
    return [value for number, value in enumerate(one.shown) if number == 0 or value in claimed]


def _of_rows(one: ItemResult, value: str) -> tuple[dict[str, Accuracy], str, float]:
    """A value by row, what it is called, and what brings it there."""
    ours = {f"{line.row}, {line.place}, ipc {line.ipc}": line.values[value] for line in one.lines if line.values[value].known}
    return ours, title_of(value), 1.0 if value in PLAIN else 100.0


def sheet_of(one: ItemResult, folder: Path) -> Any:
    """Images of an item under their maps, at the start and at the end of every row; None where no pictures are kept.

    Of the first seed at the most images per class on the first source.
    """
    lines = [line for line in one.lines if line.cells and (line.place, line.ipc) == (one.lines[0].place, one.lines[-1].ipc)]
    files = {line.row: folder / "measured" / f"{line.cells[0]}.course.safetensors" for line in lines}
    files = {row: file for row, file in files.items() if file.is_file()}
    if not files or not any(name.startswith("course.") for name in one.shown):
        return None
    try:
        held = {row: read_tensors(file, kind=PICTURES) for row, file in files.items()}
        (tensors, header), columns = next(iter(held.values())), {}
        columns["start"] = _column(tensors, "start")
        columns |= {row: _column(found, "end") for row, (found, _) in held.items()}
        names = [header["class_names"][k] for k in tensors["classes"].tolist()]
        return areas_sheet(names, columns, tensors["boxes"].numpy() if "boxes" in tensors else None)
    except (OSError, ValueError, LookupError, TypeError):
        return None  # the tables say all that was measured


def _column(tensors: Mapping[str, Tensor], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, H, W, C) and their maps in [0, 1]."""
    return tensors[name].permute(0, 2, 3, 1).numpy(), tensors[f"{name}_maps"].numpy() / 255


def _write_item(one: ItemResult, folder: Path) -> Iterator[tuple[str, Path]]:
    write_json(folder / f"{one.item}.json", one, ITEM)
    yield "json", folder / f"{one.item}.json"
    write_text(folder / f"{one.item}.md", one.markdown)
    yield "md", folder / f"{one.item}.md"
    if (figure := figure_of(one)) is not None:
        write_bytes(folder / f"{one.item}.png", png(figure))
        yield "figure", folder / f"{one.item}.png"
    if (sheet := sheet_of(one, folder)) is not None:
        write_bytes(folder / f"{one.item}-images.png", png(sheet))
        yield "images", folder / f"{one.item}-images.png"
    if find_spec("pyarrow") is not None and one.lines:
        write_bytes(folder / f"{one.item}.parquet", _parquet(one))
        yield "parquet", folder / f"{one.item}.parquet"


def _parquet(one: ItemResult) -> bytes:
    """A row for every line and value of the table."""
    arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    text, count, number = arrow.string(), arrow.int64(), arrow.float64()
    kinds = {
        **dict.fromkeys(("item", "scale", "row", "place"), text),
        "ipc": count,
        "value": text,
        **dict.fromkeys(("mean", "std"), number),
        "seeds": count,
        **dict.fromkeys(("low", "high", "cosine", "norm_ratio", "skipped_share"), number),
    }
    rows = [
        (
            *(one.item, one.scale, line.row, line.place, line.ipc, name, found.mean, found.std, len(found.values)),
            *(found.ci95 or (None, None)),
            *(line.cosine, line.norm_ratio, line.skipped_share),
        )
        for line in one.lines
        for name, found in line.values.items()
        if found.known
    ]
    named, schema = [dict(zip(kinds, row, strict=True)) for row in rows], arrow.schema(list(kinds.items()))
    buffer = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(named, schema=schema), buffer)
    return buffer.getvalue()
