"""The command line: the edge where words become calls."""
