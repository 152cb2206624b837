"""The insides of the double; nothing of hefkit is used here."""
