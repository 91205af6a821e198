"""The phases of `up` over all hosts, one file each; up_all.py has their list, in order."""
