"""Weights of other projects as starting points: DeepFloyd IF's stages I and II, both ways."""
