# ruff: noqa: F401
"""The old place of the settings, until nothing imports it; see ``repro/settings``."""
