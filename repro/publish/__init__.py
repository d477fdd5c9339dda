"""What a run made, as folders for the hub of Hugging Face: the kept documents with scores and heads as a data
set, the trained models as a model repository, each with its card.
"""
