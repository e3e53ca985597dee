"""Metrics, drift curves and reports."""
