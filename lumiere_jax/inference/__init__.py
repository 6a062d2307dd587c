"""From prompts, pictures and videos to videos."""
