"""Settings for clusters of processes."""

# Dask's watch over itself takes processor time in each process, and so does the start of each interpreter
FEWER_CYCLES = {
    "distributed.worker.multiprocessing-method": "forkserver",
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
}
