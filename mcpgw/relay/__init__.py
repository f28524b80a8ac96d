"""The gateway itself: Handlers around Handlers."""
