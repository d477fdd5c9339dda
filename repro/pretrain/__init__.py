"""Pretraining (section 5.1): one corpus in token ids, arms as orders over it, DeepSpeed as the engine.

Read ``loop.py`` first: it is the whole training. ``tokens.py`` makes the token ids, ``order.py`` says which
tokens stand in the batch of a step, ``model.py`` the network, ``engine.py`` DeepSpeed, ``checkpoint.py`` what
survives a kill.
"""
