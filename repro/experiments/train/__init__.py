"""Arms x seeds are trained and evaluated, and contrasts paired by seed."""
