"""What a run says: one ``summary.json`` collected from the artifacts, and tables, figures and a page drawn
from it alone.
"""
