"""Networks of the field, found by name, and the view of a network's parameters as one flat vector."""
