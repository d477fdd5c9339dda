"""An experiment is arms x seeds, and its kind says which stages each of them needs and what its page shows."""
