"""The command `limbeck`: one file per command, each with its heavy imports inside the functions that need them."""
