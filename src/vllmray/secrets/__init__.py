"""The cluster's secrets on this side: made, kept, read; and the endpoint's certificate."""
