"""What a killed command leaves, and what `--resume` makes of it."""
