"""Scores for others to use, and the documents that the arms keep of them, as parquet with their text."""
