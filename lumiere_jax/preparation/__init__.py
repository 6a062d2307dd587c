"""Real videos prepared for training: shards of filtered, captioned clips at one rate and size."""
