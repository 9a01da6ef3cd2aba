"""Labels in few bytes, by hand and in general."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from limbeck.distilled.label_coding import LabelCoding, decode, encode, label_error
from limbeck.runtime.errors import Failure, UsageError


def logs(*parts: float) -> Tensor:
    return torch.tensor([parts], dtype=torch.float64).log()


def test_top_k_by_hand() -> None:
    stored = encode(logs(3, 8, 1, 4), LabelCoding(top=2))
    assert stored["classes"].tolist() == [[1, 3]]
    assert stored["classes"].dtype == torch.uint8
    assert stored["logits"].shape == (1, 3)
    # 8 and 4 of 16 are kept, the other 4 are spread as 2 and 2; the logarithms' last digits are lost in half precision.
    torch.testing.assert_close(decode(stored, 4).softmax(1), torch.tensor([[2, 8, 2, 4]]) / 16, rtol=0, atol=1e-3)
    error = label_error(logs(3, 8, 1, 4), stored)
    lost = 3 / 16 * math.log(3 / 2) + 1 / 16 * math.log(1 / 2)
    assert error["kl"] == pytest.approx(lost, abs=1e-4) == error["kl_max"]
    assert error["top1_agreement"] == 1
    assert error["bytes_per_label"] == 2 * 3 + 2


def test_the_rest_is_shared_at_the_temperature() -> None:
    logits, tau = 20 * logs(3, 8, 1, 4), 20.0
    warm, cold = (encode(logits, LabelCoding(top=2, temperature=t)) for t in (tau, 1.0))
    torch.testing.assert_close((decode(warm, 4) / tau).softmax(1), torch.tensor([[2, 8, 2, 4]]) / 16, rtol=0, atol=1e-3)
    assert label_error(logits, warm, tau)["kl"] < label_error(logits, cold, tau)["kl"]
    assert label_error(logits, cold, 1.0)["kl"] < label_error(logits, warm, 1.0)["kl"]


def test_errors_by_hand() -> None:
    stored = {"logits": torch.tensor([[0.0, -1.0], [-2.0, 0.0]])}
    error = label_error(torch.tensor([[3.0, 2.0], [5.0, 5.5]]), stored)
    p = 1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(-2.0))
    second = p[0] * math.log(p[0] / p[1]) + (1 - p[0]) * math.log((1 - p[0]) / (1 - p[1]))
    assert error["kl_max"] == pytest.approx(second)
    assert error["kl"] == pytest.approx(second / 2)
    assert error["top1_agreement"] == 1
    assert label_error(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), stored)["top1_agreement"] == 0.5


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([1e-3, 1.0, 30.0, 1e4, 1e9]),
    shift=st.sampled_from([0.0, 1e3, -1e3]),
    size=st.tuples(st.integers(1, 5), st.integers(2, 400)),
    dtype=st.sampled_from(["fp32", "bf16", "fp16"]),
    share=st.none() | st.floats(0, 1),
    temperature=st.sampled_from([1.0, 20.0]),
)
def test_what_coding_keeps(
    seed: int, scale: float, shift: float, size: tuple[int, int], dtype: Any, share: float | None, temperature: float
) -> None:
    logits = scale * torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift
    top = None if share is None else 1 + int(share * (size[1] - 2))
    stored = encode(logits, LabelCoding(dtype=dtype, top=top, temperature=temperature))
    found = decode(stored, size[1])
    assert found.shape == logits.shape
    assert found.dtype == torch.float32
    assert bool(found.isfinite().all())
    if dtype == "fp32" and top is None:
        assert torch.equal(found, logits.float())
        return
    z = logits - logits.amax(1, keepdim=True)
    relative, absolute, least = {
        "fp32": (2.0**-24, 1e-44, -3e38),
        "bf16": (2.0**-8, 1e-30, -3e38),
        "fp16": (2.0**-11, 2.0**-24, -65504.0),
    }[dtype]
    allowed = relative * z.abs() + absolute
    order = z.sort(dim=1, descending=True, stable=True).indices
    likely = torch.zeros(size, dtype=torch.bool).scatter_(1, order[:, : top or size[1]], True)
    inside = likely & (z > least)
    assert bool(((found.double() - z).abs() <= allowed)[inside].all())
    if top is not None:
        rest = [found[i][~likely[i]] for i in range(size[0])]
        assert all(len(values.unique()) == 1 for values in rest)
        for values, others in zip(rest, (z[i][~likely[i]] for i in range(size[0])), strict=True):
            # The logit of the others' mean, by a sum of exponents because their mean itself may be less than a float can hold.
            r = temperature * float((others / temperature).logsumexp(0) - math.log(len(others)))
            if r > least:
                assert abs(values[0].item() - r) <= relative * abs(r) + 1e-6
    # Logits so near each other that they round to one leave the favoured class open.
    best = found.double().gather(1, logits.argmax(1, keepdim=True))
    assert bool((best == found.amax(1, keepdim=True)).all())
    assert label_error(logits, stored, temperature)["kl"] >= -1e-9


def test_half_precision_of_ten_classes_loses_little() -> None:
    logits = 5 * torch.randn(2000, 10, generator=torch.Generator().manual_seed(0)) + 20
    found = {dtype: label_error(logits, encode(logits, LabelCoding(dtype=dtype))) for dtype in ("bf16", "fp16")}  # type: ignore[arg-type]
    assert found["bf16"]["kl"] < 2e-5
    assert found["fp16"]["kl"] < 4e-7
    for error in found.values():
        assert error["top1_agreement"] == 1
        assert error["bytes_per_label"] == 20


@pytest.mark.parametrize(("num_classes", "dtype"), [(256, torch.uint8), (257, torch.int16), (40_000, torch.int32)])
def test_classes_in_the_smallest_integers(num_classes: int, dtype: torch.dtype) -> None:
    logits = torch.zeros(2, num_classes)
    logits[:, -1] = 3.0
    stored = encode(logits, LabelCoding(top=1))
    assert stored["classes"].dtype == dtype
    assert decode(stored, num_classes).argmax(1).tolist() == [num_classes - 1] * 2


def test_labels_that_cannot_be() -> None:
    for bad in (math.nan, math.inf):
        with pytest.raises(Failure, match="not finite"):
            encode(torch.tensor([[0.0, bad]]), LabelCoding())
    with pytest.raises(UsageError, match=r"view_labels.top: 3 is not below the number of classes \(3\)"):
        encode(torch.zeros(1, 3), LabelCoding(top=3))
    for changes, message in (
        ({"dtype": "fp8"}, "view_labels.dtype"),
        ({"top": 0}, "view_labels.top: 0"),
        ({"temperature": 0.0}, "view_labels.temp"),
    ):
        with pytest.raises(UsageError, match=message):
            LabelCoding(**changes)  # type: ignore[arg-type]
