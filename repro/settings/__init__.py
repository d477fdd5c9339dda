"""What a run needs, composed of YAML and the command line (``compose.py``)."""
