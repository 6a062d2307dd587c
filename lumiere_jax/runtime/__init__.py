"""What every program here stands on: errors, files, processes, devices."""
