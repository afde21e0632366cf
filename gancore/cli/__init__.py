"""The command line: ``gan``. Only this package imports click and rich."""
