"""The main program of a Ray node's container, and the programs that it runs."""
