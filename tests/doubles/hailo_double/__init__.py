"""What stands behind the double of HailoRT's Python package: a chip that misbehaves on request, and a strict judge."""
