"""The eval binary: videos to generate, features of videos, scores, and the protocol card."""
