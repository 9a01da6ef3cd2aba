"""Functions compiled ahead of time: the same numbers, from a library that the next process only opens."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.func import grad

from limbeck.runtime import ahead
from limbeck.runtime.ahead import Ahead, Library, Traced, made_side_by_side
from limbeck.runtime.compiling import compiled
from limbeck.runtime.devices import one_thread


class Pair(NamedTuple):
    loss: Tensor
    both: dict[str, Tensor]


WEIGHT = torch.linspace(-1, 1, 4 * 3 * 9).reshape(4, 3, 3, 3)


def function(x: Tensor, shift: Tensor) -> Pair:
    """A convolution, a gradient, and a tree of results."""
    y = torch.nn.functional.conv2d(x, WEIGHT, padding=1).relu() + shift
    gradient = grad(lambda z: (z.sin() * y).sum())(y)
    return Pair(y.square().mean(), {"gradient": gradient, "x": x})


def arguments(size: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(size)
    return torch.randn(2, 3, size, size, generator=generator), torch.randn((), generator=generator)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that holds nothing yet."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    return tmp_path


def libraries(cache: Path) -> list[Path]:
    return sorted(cache.glob("*/ahead/*.so"))


def test_it_gives_the_bits_of_torch_compile_and_a_library_is_made_once(cache: Path) -> None:
    given = arguments()
    with torch.no_grad(), one_thread():
        found = Ahead(function)(*given)
        plain, other = function(*given), compiled(function, side_by_side=True)(*given)
        assert isinstance(found, Pair)
        assert torch.equal(found.loss, other.loss) and torch.equal(found.both["gradient"], other.both["gradient"])
        assert torch.allclose(found.loss, plain.loss) and torch.allclose(found.both["gradient"], plain.both["gradient"], atol=1e-5)
        assert torch.equal(found.both["x"], given[0])
        (first,) = libraries(cache)
        written = first.stat().st_mtime_ns
        again = Ahead(function)(*given)
        assert torch.equal(again.loss, found.loss) and libraries(cache) == [first] and first.stat().st_mtime_ns == written


def test_a_library_is_of_its_operations_shapes_constants_and_threads(cache: Path) -> None:
    def names(function: Callable[..., Tensor], *tensors: Tensor) -> str:
        return Traced.of(function, tensors, torch.utils._pytree.tree_flatten(tensors)[1])[0].path.name

    x, constant = torch.ones(3, 4), torch.tensor([1.0, 2.0, 3.0, 4.0])
    other, half = constant.clone(), constant.bfloat16()
    other[3] = 5.0
    with one_thread():
        first = names(lambda x: x * constant, x)
        assert names(lambda y: y * constant.clone(), x) != first  # another operation
        assert names(lambda x: x * constant, x) == first == names(lambda y: y * constant, x + 1)
        different = {
            names(lambda x: x + constant, x),
            names(lambda x: x * other, x),
            names(lambda x: x * half, x),
            names(lambda x: x * 2.0, x),
            names(lambda x: x * 2.0000000000000004, x),
            names(lambda x: x * constant, x.double()),
            names(lambda x: x * constant, torch.ones(4, 4)),
            names(lambda x: x * constant, torch.ones(4, 3).t()),
            names(lambda x: x * constant[0], x),
        }
    assert len(different) == 9 and first not in different
    with ahead.so_many_threads(2):
        assert names(lambda x: x * constant, x) != first


def test_the_next_process_opens_it_without_the_compiler(cache: Path) -> None:
    code = """
    import sys, torch
    from limbeck.runtime.ahead import Ahead
    torch.set_num_threads(1)
    with torch.no_grad():
        print(Ahead(lambda x: (2 * x).sum())(torch.arange(5.0)).item(), "torch._inductor.compile_fx" in sys.modules)
    """
    words = [sys.executable, "-c", textwrap.dedent(code)]
    runs = [subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ.copy()).stdout for _ in range(2)]
    assert runs == ["20.0 True\n", "20.0 False\n"]
    assert len(libraries(cache)) == 1


def test_threads_go_side_by_side(cache: Path) -> None:
    """Each is given its own result, however many are in the library at once."""
    doubled = Ahead(lambda x: (2 * x).cumsum(0), at_once=2)
    given = [torch.full((1000,), float(value)) for value in range(40)]

    def call(x: Tensor) -> Tensor:
        with torch.no_grad(), one_thread():
            return doubled(x)

    call(given[0])
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(call, given))
    assert all(torch.equal(one, (2 * x).cumsum(0)) for one, x in zip(found, given, strict=True))


def test_what_is_given_stays_and_results_are_their_owners(cache: Path) -> None:
    """No tensor is freed twice or kept: those that were given live on, and results may be written to."""
    shifted = Ahead(lambda x: (x + 1, x))
    x = torch.zeros(1000)
    with torch.no_grad(), one_thread():
        for _ in range(50):
            more, same = shifted(x)
            more.add_(1)
            assert same.data_ptr() == x.data_ptr() or torch.equal(same, x)
        assert torch.equal(x, torch.zeros(1000)) and torch.equal(more, torch.full((1000,), 2.0))
    assert sys.getrefcount(x) <= 4


def test_functions_without_a_library_are_called_as_they_are_until_all_are_made(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "cores", lambda: 2)
    computed = [0, 0]

    def counting(number: int) -> Callable[[Tensor], Tensor]:
        def of(x: Tensor) -> Tensor:
            computed[number] += 1
            return x * (number + 2)

        return of

    one, two = Ahead(counting(0)), Ahead(counting(1))
    x = torch.arange(4.0)
    with torch.no_grad(), one_thread():
        with made_side_by_side():
            assert torch.equal(one(x), 2 * x) and torch.equal(two(x), 3 * x)
            assert torch.equal(one(x), 2 * x)
            assert libraries(cache) == []
        assert len(libraries(cache)) == 2 and computed == [3, 2]  # once to be traced
        assert torch.equal(one(x), 2 * x) and torch.equal(two(x), 3 * x)
        assert computed == [3, 2] and len(libraries(cache)) == 2


def test_a_single_one_that_is_missing_is_made_where_it_is_wanted(cache: Path) -> None:
    doubled, x = Ahead(lambda x: 2 * x), torch.ones(3)
    with torch.no_grad(), one_thread():
        with made_side_by_side():
            doubled(x)
        assert libraries(cache) == []
        assert torch.equal(doubled(x), 2 * x) and len(libraries(cache)) == 1


@pytest.fixture
def own_operation() -> Any:
    """An operation of somebody's own, which only Python can call."""

    @torch.library.custom_op("limbeck_tests::twice", mutates_args=())
    def twice(x: Tensor) -> Tensor:
        return 2 * x

    twice.register_fake(torch.empty_like)
    return twice


@pytest.mark.parametrize(
    "make",
    [
        lambda own: lambda x: own(x) + 1,  # no library can call it
        lambda own: lambda x: x if x.sum() > 0 else -x,  # depends on values
    ],
)
def test_what_cannot_be_compiled_is_left_to_something_else(cache: Path, own_operation: Any, make: Any) -> None:
    function, x = make(own_operation), torch.ones(3)
    with torch.no_grad(), one_thread():
        assert torch.equal(Ahead(function, otherwise=function)(x), function(x))
        with pytest.raises(Exception, match=r".+"):
            Ahead(function)(x)
        with made_side_by_side():
            assert torch.equal(Ahead(function, otherwise=function)(x), function(x))


def test_a_damaged_library_is_made_again(cache: Path) -> None:
    x = torch.arange(7.0)
    with torch.no_grad(), one_thread():
        traced, _ = Traced.of(lambda x: 3 * x + 1, [x], torch.utils._pytree.tree_flatten((x,))[1])
        traced.path.parent.mkdir(parents=True)
        traced.path.write_bytes(b"no library")
        with pytest.raises(OSError):
            Library(traced.path, 1)
        assert torch.equal(Ahead(lambda x: 3 * x + 1)(x), 3 * x + 1)
        assert libraries(cache) == [traced.path] and traced.path.stat().st_size > 1000


def test_a_compiler_that_fails_is_heard_where_the_function_is_called(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Traced) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(Traced, "make", broken)
    monkeypatch.setattr(ahead, "cores", lambda: 1)
    one, two, x = Ahead(lambda x: 5 * x), Ahead(lambda x: 6 * x, otherwise=lambda x: 7 * x), torch.ones(2)
    with torch.no_grad(), one_thread():
        with made_side_by_side():
            one(x), two(x)
        with pytest.raises(RuntimeError, match="no compiler"):
            one(x)
        assert torch.equal(two(x), 7 * x)
    assert libraries(cache) == [] and not list(cache.glob("*/ahead/*"))
