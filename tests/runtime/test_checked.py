"""What a field declares is what a settings object holds, however it is made; objects are written as what they are."""

import functools
import math
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pytest
import torch

from limbeck.matching.criteria import LowLossDropout
from limbeck.runtime.checked import Checked, Chosen, Count, Named, Options, Rule, Share, at_least, within
from limbeck.runtime.errors import UsageError
from limbeck.runtime.fingerprint import described, encodable, fingerprint, plain


@dataclass(frozen=True, kw_only=True, slots=True)
class Example(Checked):
    prefix: ClassVar[str] = "example."
    count: Count = 1
    optional: Annotated[int, at_least(2, " of them")] | None = None
    share: Share = Chosen(0.0)
    auto: Count | Literal["auto"] = "auto"
    either: Literal["mean"] | Annotated[float, within("(0, 1]", "a number ")] = "mean"
    flag: bool = True
    text: str = ""
    name: Literal["a", "b"] = "a"
    pair: Annotated[tuple[float, float], Rule("two numbers, the smaller first", lambda pair: pair[0] <= pair[1])] = (0.0, 1.0)
    many: tuple[int | str, ...] | None = None
    named: Named[Literal["a", "b"]] = "a"
    open: Named[str] = "x"
    size: Annotated[int | None, Rule("null or even", lambda size: size is None or size % 2 == 0)] = None

    def check_together(self) -> None:
        if self.count == 7 and self.flag:
            raise UsageError("example.count: 7 is not possible with example.flag")


@dataclass(frozen=True, kw_only=True, slots=True)
class Typed(Options):
    per_class: Count = 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 0}, "example.count: 0 is not at least 1"),
        ({"count": True}, "example.count: True is not a whole number"),
        ({"count": 2.0}, "example.count: 2.0 is not a whole number"),
        ({"count": "2"}, "example.count: '2' is not a whole number"),
        ({"count": None}, "example.count: None is not a whole number"),
        ({"optional": 1}, "example.optional: 1 is not at least 2 of them, or null"),
        ({"optional": 2.5}, "example.optional: 2.5 is not a whole number or null"),
        ({"share": 1}, "example.share: 1 is not in [0, 1)"),
        ({"share": math.nan}, "example.share: nan is not in [0, 1)"),
        ({"share": False}, "example.share: False is not a number"),
        ({"share": 10**400}, "example.share: 1" + 58 * "0" + "… is not a number"),
        ({"auto": 0}, "example.auto: 0 is not auto or at least 1"),
        ({"auto": "all"}, "example.auto: 'all' is not a whole number or auto"),
        ({"either": 0.0}, "example.either: 0.0 is not mean or a number in (0, 1]"),
        ({"either": "median"}, "example.either: 'median' is not mean or a number"),
        ({"flag": 1}, "example.flag: 1 is not true or false"),
        ({"text": 3}, "example.text: 3 is not text"),
        ({"text": "\udcff"}, "example.text: '\\udcff' is not UTF-8 text, which the files of a run hold"),
        ({"name": "c"}, "example.name: 'c' is not one of a, b"),
        ({"pair": (1, 0)}, "example.pair: [1, 0] is not two numbers, the smaller first"),
        ({"pair": (1.0,)}, "example.pair: [1.0] is not a list of 2 numbers"),
        ({"pair": (0.0, math.nan)}, "example.pair: [0.0, nan] is not a list of 2 numbers"),
        ({"many": ("a", 1.5)}, "example.many: ['a', 1.5] is not a list of whole numbers or names or null"),
        ({"many": "ab"}, "example.many: 'ab' is not a list of whole numbers or names or null"),
        ({"named": "c"}, "example.named: 'c' is not one of a, b, or package.module:Name"),
        ({"named": "mine:"}, "example.named: 'mine:' is not of the form package.module:Name"),
        ({"named": 3}, "example.named: 3 is not one of a, b, or package.module:Name"),
        ({"named": None}, "example.named: None is not one of a, b, or package.module:Name"),
        ({"open": 3}, "example.open: 3 is not a name, or in Python the object itself"),
        ({"size": 3}, "example.size: 3 is not null or even"),
        ({"count": 7}, "example.count: 7 is not possible with example.flag"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(given: dict[str, Any], message: str) -> None:
    for make in (lambda: Example(**given), lambda: replace(Example(), **given)):
        with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
            make()


def test_options_are_named_as_they_are_typed() -> None:
    with pytest.raises(UsageError, match="^--per-class: 0 is not at least 1$"):
        Typed(per_class=0)


def test_values_are_kept_as_what_is_declared() -> None:
    made = Example(count=np.int64(3), share=0, either=1, pair=[0, np.float32(0.5)], many=[1, "b"], text=Path("a") / "b")  # type: ignore[arg-type]
    assert (made.count, made.share, made.either, made.pair, made.many, made.text) == (3, 0.0, 1.0, (0.0, 0.5), (1, "b"), "a/b")
    kinds = [type(value) for value in (made.count, made.share, made.either, *made.pair)]
    assert kinds == [int, float, float, float, float]
    assert isinstance(Example().share, Chosen) and not isinstance(Example(share=0.5).share, Chosen)


class Own:
    pass


@pytest.mark.parametrize("value", [Own(), Own, len, LowLossDropout(0.5), torch.nn.Linear(1, 1), "package.module:Name", "a.b:C.d"])
def test_a_key_that_names_an_object_takes_it(value: Any) -> None:
    made = Example(named=value, open=value)
    assert made.named is value and made.open is value
    written = plain(made)["named"]
    assert isinstance(written, str)
    assert Example(named=written).named == written  # as it is read again from a file


def test_collections_of_objects_are_objects_and_others_are_none() -> None:
    arrays = (np.zeros((2, 3)), np.arange(2))
    assert Example(open=arrays).open is arrays
    assert plain(Example(open=arrays))["open"] == plain(Example(open=(arrays[0].copy(), arrays[1])))["open"]
    assert plain(Example(open=arrays))["open"].startswith("builtins:tuple(numpy:ndarray(")
    named = type("Named", (dict,), {})(a=1)
    assert Example(open=named).open is named
    for value in ((), [1, "a"], {"a": (1, None)}, b"x"):
        with pytest.raises(UsageError, match=r"^example\.open: .* is not a name, or in Python the object itself$"):
            Example(open=value)


def test_objects_are_described_by_what_they_hold() -> None:
    assert described(LowLossDropout(0.25)) == "limbeck.matching.criteria:LowLossDropout(drop_ratio=0.25)"
    assert (
        described(math.floor) == "math:floor"
        and described(math) == "math"
        and described(LowLossDropout).endswith(":LowLossDropout")
    )
    assert described(Own()) == f"{__name__}:Own"
    assert described(functools.partial(print, Own, sep="")) == f"functools:partial(builtins:print, {__name__}:Own, sep='')"
    assert encodable(Example(named=LowLossDropout(0.25)))["named"] == "limbeck.matching.criteria:LowLossDropout(drop_ratio=0.25)"


def test_what_differs_is_described_otherwise() -> None:
    def adding(n: int) -> Any:
        return lambda x: x + n

    assert described(adding(1)) == described(adding(1)) != described(adding(2))
    assert described(lambda x: x + 1) != described(lambda x: x + 2)
    first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    assert described(first) == described(first) != described(second)
    assert described(np.zeros(3)) != described(np.zeros(4))
    assert described(torch.ones(2, dtype=torch.bfloat16, requires_grad=True)) != described(torch.zeros(2))
    assert described(torch.nn.BatchNorm2d(2).bfloat16()) != described(torch.nn.BatchNorm2d(3).bfloat16())
    assert fingerprint(Example(named=first)) != fingerprint(Example(named=second))


def test_descriptions_are_the_same_in_every_process() -> None:
    code = (
        "from limbeck.runtime.fingerprint import described\nimport torch\ntorch.manual_seed(0)\n"
        "print(described(lambda x: [x, 'a', 2.5]), described(torch.nn.Linear(2, 2)), described(torch.nn.BatchNorm2d(2)))"
    )
    found = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(found) == 1 and " at 0x" not in found.pop()
