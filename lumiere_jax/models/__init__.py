"""The networks: pure functions of parameters and arrays."""
