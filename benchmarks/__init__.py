"""Speed and memory at true size, side by side with what a user would use instead, in one run."""
