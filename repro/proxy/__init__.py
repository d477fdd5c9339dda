"""The pretrained model that selects: where it comes from, how its heads are masked, how its losses are
computed.
"""
