"""Rough prototypes of five methods, written against the hooks alone to try them before they are frozen."""
