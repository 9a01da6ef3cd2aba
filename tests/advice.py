"""What a message advises: options, and keys with their values."""

import re

OPTION = re.compile(r"(?<![\w(-])--[a-z][a-z-]*[a-z]")
KEY = re.compile(r"(?<![\w.'{}`-])([a-z_]+(?:\.[a-z_0-9]+)?)=([^\s;)`']*)")
