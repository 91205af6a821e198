"""The use cases: what up, status, logs and down do. No Docker here, no terminal."""
