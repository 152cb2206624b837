"""Several candidates of one model, compiled side by side on one machine or many, measured and ranked.

Modules, in reading order:
    settings  one candidate: what it sets, its name, its command line
    plan      the sweep file -> candidates
    auto      --sweep auto: chooses the candidates, and orders them by a quick emulation
    job       a candidate as work for any machine, and the key of its result
    worker    what runs on a worker: keep inputs, run a candidate, stop it
    guard     ends a candidate whose worker is gone
    pool      the workers of a cluster, each with one candidate at a time
    folder    runs/sweep/NAME: a folder and a record for each candidate
    ranking   scores with intervals, equal candidates, the cheapest of them
    run       plan, reuse, compile, rank
    pareto    the picture: accuracy over size
    report    the winner beside the runner-up, emulated by us or by the SDK
    result    table, sweep.json, and the winner

Others use: folder, plan, result, run, settings.
"""
