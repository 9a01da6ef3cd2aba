"""The distilled set: how it begins, what it is, how it is saved, shown and exported."""
