"""Measures of generated videos."""
