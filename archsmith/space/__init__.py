"""What may be chosen, as plain data. No torch."""
