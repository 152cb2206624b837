"""Put a set of files in place together, so that a kill or a power cut at any moment leaves the old or the new set.

    journal  the lock of a folder; what a killed run left is finished or removed
    stage    a hidden folder beside the files that it replaces, and the commit

Others use: journal, stage.
"""
