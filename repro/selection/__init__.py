"""Which documents are kept: selectors give a priority, ranking takes a budget from the top, mixtures say how
often.
"""
