"""What operators see of a running ChatStream."""
