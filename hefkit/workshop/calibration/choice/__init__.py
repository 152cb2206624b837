"""Which pictures make the set: a look at each, the choice, and what it covers.

    look      a thumbnail and a label file -> hash, numbers, objects
    cache     what earlier runs have seen
    scan      look at every picture; one table
    cluster   threads of this machine, or a Dask cluster
    choose    near-duplicates, classes, sizes, spread -> the order
    plan      scan and choose, where asked for
    coverage  what a set covers and lacks, in figures and words
    chart     the same as a picture

Others use: chart, cluster, coverage, look, plan, scan.
"""
