"""What `make demo` and `make demo-train` show."""
