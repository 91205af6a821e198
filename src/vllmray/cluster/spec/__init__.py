"""From settings to containers: values in, values out."""
