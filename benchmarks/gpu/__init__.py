"""The GPU card: what is measured the first time that a GPU is at hand (docs/gpu.md)."""
