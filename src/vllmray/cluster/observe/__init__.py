"""What is seen of a cluster that runs."""
