"""Getting an image onto a host: pull, build, add Ray, copy."""
