"""AttentionInfluence, replicated: find retrieval heads, score documents, select, pretrain, evaluate, compare."""
