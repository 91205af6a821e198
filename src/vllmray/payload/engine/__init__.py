"""The main program of the engine's container, and its parts."""
