"""Losses of logits f with shape (N, K), averaged over the batch.

    soft cross-entropy   −mean_i Σ_k softmax(Y)_ik log softmax(f)_ik      Y label logits
    cross-entropy        −mean_i Σ_k p_ik log softmax(f)_ik               p label probabilities, one-hot for hard labels
    divergence           mean_i KL(softmax(t / τ)_i ‖ softmax(f / τ)_i)   t the teacher's logits, τ the temperature

All are smooth in every argument, any number of times, and free of branches on values: fit for `torch.func` and
`torch.compile`.
"""

from dataclasses import dataclass

from torch import Tensor


def soft_cross_entropy(logits: Tensor, target_logits: Tensor) -> Tensor:
    """−mean_i Σ_k softmax(Y)_ik log softmax(f)_ik, a scalar, for f = `logits` and Y = `target_logits`, both (N, K).

    Example:
        >>> import torch
        >>> soft_cross_entropy(torch.zeros(2, 4), torch.zeros(2, 4))
        tensor(1.3863)
    """
    return cross_entropy(logits, target_logits.softmax(-1))


def cross_entropy(logits: Tensor, probabilities: Tensor) -> Tensor:
    """−mean_i Σ_k p_ik log softmax(f)_ik, a scalar, for f = `logits` and p = `probabilities` (rows sum to 1), both (N, K).

    Example:
        >>> import torch
        >>> cross_entropy(torch.zeros(2, 4), torch.eye(4)[:2])
        tensor(1.3863)
    """
    return -(probabilities * logits.log_softmax(-1)).sum(-1).mean()


def kl_divergence(teacher_logits: Tensor, student_logits: Tensor, temperature: float) -> Tensor:
    """mean_i KL(teacher_i ‖ student_i), a scalar, of logits (N, K) divided by the temperature τ > 0.

    There is no factor τ²: the gradient shrinks as τ grows, as in the published protocols (SRe2L, RDED).
    """
    teacher = (teacher_logits / temperature).log_softmax(-1)
    student = (student_logits / temperature).log_softmax(-1)
    return (teacher.exp() * (teacher - student)).sum(-1).mean()


@dataclass(frozen=True, slots=True)
class Divergence:
    """The divergence as a loss of (student's logits, teacher's logits) at a temperature τ > 0."""

    temperature: float

    def __call__(self, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """mean_i KL(teacher_i ‖ student_i), a scalar, of logits (N, K)."""
        return kl_divergence(teacher_logits, logits, self.temperature)
