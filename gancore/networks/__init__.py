"""Generators and discriminators, and what drives their normalisation and averaging.

Importing this package imports no torch: specifications (``spec``, ``options``, ``builtin``) are read by the
command line before anything is built. ``protocols`` states what a network promises the trainer.
"""
