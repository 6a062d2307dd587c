"""Gaussian data, for which everything that a network could learn is known; NumPy, float64."""

import numpy as np


def levels(log_snr, ndim):
    """Alpha and sigma of each sample, to be broadcast to samples of so many axes."""
    log_snr = np.asarray(log_snr, np.float64).reshape(-1, *(1,) * (ndim - 1))
    return 1 / np.sqrt(1 + np.exp(-log_snr)), 1 / np.sqrt(1 + np.exp(log_snr))


def score(z, log_snr, mean, deviation):
    """Of noisy samples of N(mean, deviation²), each value on its own."""
    alpha, sigma = levels(log_snr, z.ndim)
    return (alpha * mean - z) / (alpha**2 * deviation**2 + sigma**2)


def denoised(z, log_snr, mean, deviation):
    """The best estimate of clean data, by Tweedie's formula."""
    alpha, sigma = levels(log_snr, z.ndim)
    return (z + sigma**2 * score(z, log_snr, mean, deviation)) / alpha
