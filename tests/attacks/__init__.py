"""Bad input for every command, made by the thousand: what must end in one clear line."""
