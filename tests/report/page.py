"""A page as its elements, and what stands in one."""

import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

from limbeck.distilled.contrast import Contrast
from limbeck.distilled.set import DistilledSet
from limbeck.report.html import write_report

NAMES = ("owl", "<script>alert('x')</script>", "猫 & קטן")
VOID = {"meta", "img", "input", "br", "link", "wbr"}


class Page(HTMLParser):
    """The elements of a page: tag, attributes and the text inside each."""

    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(content)
        self.close()
        assert not self.open, f"not closed: {[tag for tag, *_ in self.open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = (tag, dict(attrs), [])
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, _, inside in self.open:
            inside.append(data)

    def texts(self, tag: str, **attributes: str) -> list[str]:
        """The text of every such element, spaces collapsed."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [
            " ".join("".join(inside).split())
            for found, held, inside in self.elements
            if found == tag and wanted.items() <= held.items()
        ]

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [held for found, held, _ in self.elements if found == tag]


def page(run: Path) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


def unpack(source: str) -> Image.Image:
    kind, content = source.split(",", 1)
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def data_of(report: Page, name: str) -> dict:
    (data,) = ("".join(inside) for tag, held, inside in report.elements if held.get("id") == name)
    return json.loads(data)


def film_of(report: Page) -> dict:
    """The film with the pictures of its snapshots, which lie apart."""
    film = data_of(report, "film-data")
    return film | {"frames": [frame | data_of(report, f"film-frame-{k}") for k, frame in enumerate(film["frames"])]}


def figures_of(report: Page) -> list[dict[str, str | None]]:
    return [held for held in report.attributes("svg") if held.get("class") == "figure"]


def pixels_of(run: Path, tensors: dict, *rows: int) -> np.ndarray:
    """What of a snapshot is to be seen: by the inverse of the preprocessing, with the contrast of the set."""
    held = DistilledSet.load(run / "distilled")
    contrast = Contrast.of(held.preprocessing.inverse(held.images))
    return contrast.levels(held.preprocessing.inverse(tensors["X"][list(rows)] if rows else tensors["X"]))
