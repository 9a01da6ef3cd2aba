"""`limbeck watch`: the pages of runs while they are made, for a browser on the same machine."""
