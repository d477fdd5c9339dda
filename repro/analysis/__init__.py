"""Statistics and analyses of outcomes and of what was selected."""
