"""Scores of each arm's proxy, heads and mask compared: how far their rankings agree."""
