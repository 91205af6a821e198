"""Short programs, each of which inspects a host, an image or a folder, and exits."""
