"""What can be said before anything is run: stages, their cost, what is cut, what is refused."""
