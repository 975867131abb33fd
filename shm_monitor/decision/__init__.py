"""A configuration and a schema become the tables that the kernels decide by."""
