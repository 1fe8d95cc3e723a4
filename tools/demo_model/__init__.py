"""Scripts that train, measure and write the demo checkpoint of `minicpm_core/demo`."""
