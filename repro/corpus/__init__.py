"""Documents: where they come from, how they are cleaned, and the split into training and held-out."""
