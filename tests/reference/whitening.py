"""ZCA and its inverse from the definition: (Σ + ε I)^(∓1/2) by SciPy's matrix square root, no eigenvectors in sight."""

import numpy as np
import scipy.linalg


def whitening(pixels: np.ndarray, epsilon: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (D,), W (D, D) and W⁻¹ (D, D) for float64 `pixels` with shape (N, D)."""
    count, size = pixels.shape
    mean = np.array([sum(pixels[:, d]) / count for d in range(size)])
    covariance = np.zeros((size, size))
    for pixel in pixels:
        covariance += np.outer(pixel - mean, pixel - mean) / (count - 1)
    inverse = np.real(scipy.linalg.sqrtm(covariance + epsilon * np.eye(size)))
    return mean, np.linalg.inv(inverse), inverse
