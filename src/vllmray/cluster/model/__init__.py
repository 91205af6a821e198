"""Model files on hosts: which are there, the download, and host to host."""
