"""Planted truth: documents of known kinds among real text, and how well each selector finds each kind. Trains
nothing.
"""
