"""Processes of this machine where others have containers: what stands behind host.py."""
