"""The app's inference task."""
