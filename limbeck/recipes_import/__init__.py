"""The research code's YAML files as recipes."""
