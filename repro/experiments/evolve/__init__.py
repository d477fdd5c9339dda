"""Head scores of checkpoints: when in training heads come to copy (figure 2)."""
