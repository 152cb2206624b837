"""Strict doubles of vendor libraries; a test puts this folder on sys.path, a user never does."""
