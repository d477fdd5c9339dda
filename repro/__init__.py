"""AttentionInfluence, replicated: find retrieval heads, score documents, select, pretrain, evaluate,
compare.
"""

import os

# cuBLAS looks once, before its first product, and adds in one order only if told so
# (repro.pretrain.engine.repeatable).
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
