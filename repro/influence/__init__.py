"""Influence scores of documents: two losses each (section 4.2, eq. 5)."""
