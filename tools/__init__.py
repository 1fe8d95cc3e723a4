"""Scripts for developers: the demo checkpoint, the notebooks, the README table."""
