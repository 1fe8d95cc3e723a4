"""The `minicpm` command."""
