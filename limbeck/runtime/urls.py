"""Which texts name a place that is no path of this machine: `s3://bucket/key`, `gs://…`, whatever fsspec knows."""

import re

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+(?:::[A-Za-z0-9+.:-]+)?)://(.*)", re.DOTALL)
FILE = "file://"


def is_url(place: object) -> bool:
    """Whether text names a place that is no path of this machine."""
    return isinstance(place, str) and URL.fullmatch(place) is not None and not place.startswith(FILE)


def local(place: str) -> str:
    """`file:///a/b` as the path `/a/b`; everything else as it is."""
    return place.removeprefix(FILE) if place.startswith(FILE) else place
