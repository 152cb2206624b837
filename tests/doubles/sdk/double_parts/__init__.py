"""The parts of the double; they use nothing of hefkit."""
