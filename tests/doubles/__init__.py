"""Strict doubles of vendor libraries. Tests put this folder on sys.path; users never do."""
