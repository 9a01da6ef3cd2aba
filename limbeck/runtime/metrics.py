"""`metrics.jsonl`: one JSON object a line, appended as a run goes on and cut back to the checkpoint when it resumes."""

import json
import math
from pathlib import Path
from typing import Any

from limbeck.runtime.bounded import json_of, read_text
from limbeck.runtime.disk import naming
from limbeck.runtime.errors import UsageError, one_line
from limbeck.runtime.files import write_text
from limbeck.runtime.fingerprint import plain
from limbeck.runtime.room import vanished


class MetricsLog:
    """Appends to the file at `path`; `keep_until(iteration)` forgets later lines, which a resumed run writes again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, **values: Any) -> None:
        """Write one line; numbers that are not finite become null, because JSON has no word for them."""
        line = json.dumps({key: _finite(plain(value)) for key, value in values.items()})
        try:
            with naming(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except FileNotFoundError as error:
            raise vanished(self.path.parent) from error

    def keep_until(self, iteration: int) -> None:
        """Keep the lines whose `iteration` is below the given one; a half-written last line goes too."""
        rows = [row for row in read_metrics(self.path) if row["iteration"] < iteration]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The objects in a metrics file, without a last line that a crash cut off; an absent file has none.

    Raises:
        UsageError: when the file is no text.
    """
    if not path.exists():
        return []
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else one_line(error)
        raise UsageError(f"output: {str(path)!r} is broken ({reason}); delete it, and the run goes on") from error
    rows = []
    for line in text.splitlines():
        try:
            row = json_of(line)
        except ValueError:
            break
        if not isinstance(row, dict):
            break
        rows.append(row)
    return rows


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return {key: _finite(item) for key, item in value.items()} if isinstance(value, dict) else value
