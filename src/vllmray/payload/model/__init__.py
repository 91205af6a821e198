"""Model files between hosts: what is there (listing.py), a download from a hub (fetch.py), host to host (share.py)."""
