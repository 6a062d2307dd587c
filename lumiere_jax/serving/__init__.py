"""Serving: an HTTP interface, a queue of jobs in a database, and workers that make videos."""
