"""The main program of a Ray node's container, and what it runs."""
