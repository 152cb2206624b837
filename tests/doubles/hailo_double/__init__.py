"""Behind the double of HailoRT's Python package: a simulated chip with faults, and a list of broken rules."""
