"""Labels in few bytes: logits in half precision, perhaps only of the likeliest classes.

Of a teacher's logits z (K,) is kept, with z' = z − max z, which no softmax can tell from z,

    fp32      z itself: nothing is lost                                                4 K bytes
    all       z' in half precision                                                     2 K bytes
    top k     the k greatest z', their classes, and one logit r for each class that is left:
              r = τ log( Σ_left exp(z'/τ) / (K − k) )                                  2 (k + 1) bytes and k … 4 k for the classes

so that at the temperature τ the classes that are left keep their share of the probability, evenly spread. The likely classes' z'
lie near 0, where floating point is finest. `label_error` measures what was lost.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from limbeck.runtime.checked import Checked, Count, Positive
from limbeck.runtime.errors import Failure, require
from limbeck.runtime.records import Record

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelCoding(Checked, Record):
    """How labels are kept.

    Args:
        dtype: `fp32`, `bf16` or `fp16`.
        top: how many of the likeliest classes are kept, below K; None keeps all.
        temperature: τ, at which the rest is spread evenly: that of the divergence which the labels are for.

    Raises:
        UsageError: when a value is not accepted.
    """

    prefix: ClassVar[str] = "view_labels."
    dtype: Literal["fp32", "bf16", "fp16"] = "bf16"
    top: Count | None = None
    temperature: Positive = 1.0

    @property
    def exact(self) -> bool:
        """Whether nothing is lost."""
        return self.dtype == "fp32" and self.top is None


def encode(logits: Tensor, coding: LabelCoding) -> dict[str, Tensor]:
    """Logits (B, K) in few bytes, on the CPU: `logits` with shape (B, K), or (B, k + 1), the last of them r, and `classes` (B, k).

    Raises:
        UsageError: when `view_labels.top` is not below K.
        Failure: when a logit is not finite.
    """
    if not bool(logits.isfinite().all()):
        raise Failure("the teacher gives logits that are not finite, which cannot be labels")
    if coding.exact:
        return {"logits": logits.float().cpu()}
    num_classes, top, dtype = logits.shape[1], coding.top, TYPES[coding.dtype]
    z = logits.double()
    z = z - z.amax(1, keepdim=True)
    if top is None:
        return {"logits": _rounded(z, dtype)}
    require(top < num_classes, "view_labels.top", top, f"below the number of classes ({num_classes})")
    z, classes = z.sort(dim=1, descending=True, stable=True)
    tau = coding.temperature
    rest = tau * ((z[:, top:] / tau).logsumexp(1, keepdim=True) - math.log(num_classes - top))
    kept = torch.cat([z[:, :top], rest], 1)
    return {"logits": _rounded(kept, dtype), "classes": classes[:, :top].to(smallest_integers(num_classes - 1)).cpu()}


def decode(stored: Mapping[str, Tensor], num_classes: int) -> Tensor:
    """The logits (B, K), float32, that `encode` kept, on the device of what is stored; the greatest is 0 unless they are exact."""
    logits = stored["logits"].float()
    if "classes" not in stored:
        return logits
    return logits[:, -1:].repeat(1, num_classes).scatter_(1, stored["classes"].long(), logits[:, :-1])


def label_error(logits: Tensor, stored: Mapping[str, Tensor], temperature: float = 1.0) -> dict[str, float]:
    """What is lost in labels that are kept in few bytes.

    Args:
        logits: the teacher's, with shape (B, K).
        stored: what `encode` made of them.
        temperature: that both are divided by.

    Returns:
        `kl` and `kl_max`, mean and greatest KL(teacher ‖ stored) in nats, `top1_agreement`, the share of labels that favour the
        same class, and `bytes_per_label`.
    """
    whole = logits.double().cpu()
    kept = decode(stored, whole.shape[1]).double().cpu()
    log_p, log_q = ((z / temperature).log_softmax(1) for z in (whole, kept))
    # Where p is 0, and log p perhaps −∞, nothing is lost.
    lost = torch.where(log_p.exp() > 0, log_p.exp() * (log_p - log_q), 0.0).sum(1)
    return {
        "kl": float(lost.mean()),
        "kl_max": float(lost.max()),
        "top1_agreement": float((whole.argmax(1) == kept.argmax(1)).double().mean()),
        "bytes_per_label": sum(value.element_size() * value[0].numel() for value in stored.values()),
    }


def smallest_integers(most: int) -> torch.dtype:
    """The smallest type of integers that holds 0 … `most`."""
    return torch.uint8 if most < 2**8 else torch.int16 if most < 2**15 else torch.int32


def _rounded(z: Tensor, dtype: torch.dtype) -> Tensor:
    return z.clamp_min(torch.finfo(dtype).min).to(dtype).cpu()
