"""Evaluation: benchmarks through lm-eval, and bits per byte of text."""
