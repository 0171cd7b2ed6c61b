"""From images to features and codes."""
