"""Pages that people look at: one HTML file each, that needs nothing else. `page.py` says how a part is added to one."""
