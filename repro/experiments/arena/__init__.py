"""``exp.kind: arena``: many selectors against random on one pool, each at several sizes of the model."""
