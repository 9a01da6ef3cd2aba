"""Sinks of a user's own, named `tracking.recorded:Recorded`."""

import json
from collections.abc import Mapping
from typing import Any

from PIL import Image

from limbeck.tracking.sink import About, Sink


class Recorded(Sink):
    """Writes down all that it is told, a line each."""

    def __init__(self, about: About) -> None:
        about.folder.mkdir(parents=True, exist_ok=True)
        self.file = about.folder / "told.jsonl"
        self._add("begin", about.first, run=about.run, name=about.name, method=about.settings.get("method"))

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        self._add("scalars", iteration, **values)

    def picture(self, iteration: int, name: str, image: Image.Image) -> None:
        self._add("picture", iteration, name=name, size=image.size, mean=sum(image.resize((1, 1)).getpixel((0, 0))))  # type: ignore[arg-type]

    def close(self) -> None:
        self._add("close", -1)

    def _add(self, what: str, at: int, **more: Any) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps({"what": what, "at": at, **more}) + "\n")


class Broken(Recorded):
    """Fails after a while, and again whenever it is asked."""

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        if iteration >= 1:
            raise ConnectionError("the server\nhas gone")
        super().scalars(iteration, values)

    def close(self) -> None:
        raise AssertionError("a sink that has failed is left alone")


def refuses(about: About) -> Sink:
    """Exits, as some libraries do."""
    raise SystemExit(3)


NOTHING = "no sink"
