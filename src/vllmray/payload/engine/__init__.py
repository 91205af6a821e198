"""The main program of the engine's container, and what it is made of."""
