"""The model: a baked directory, and what turns samples into words and times."""
