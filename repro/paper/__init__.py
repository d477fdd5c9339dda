"""The paper's printed figures, and its tables, figures and claims with ours beside them; the README's block
of results.
"""
