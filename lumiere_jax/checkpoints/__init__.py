"""Weights on disk, and what is said of them."""
