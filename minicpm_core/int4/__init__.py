"""int4 on the CPU: quantising, a cache of what was quantised, and layers that compute with it."""
