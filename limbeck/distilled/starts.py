"""What a synthetic set can start from, by name; `initial.py` has what each is. Free of torch, for the settings."""

from typing import Literal, get_args

Start = Literal["correct", "real", "noise", "centre"]
STARTS: tuple[str, ...] = get_args(Start)
