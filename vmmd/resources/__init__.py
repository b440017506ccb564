"""What a machine is configured to be before it starts, as frozen values."""
