"""The recorder in every version of Python and JAX that it says it works in."""
