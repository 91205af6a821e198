"""The cluster's secrets on the user's machine: generated, stored, read; and the endpoint's certificate."""
