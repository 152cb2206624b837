"""Hailo's Dataflow Compiler, the SDK: found, checked, and run as a child process under its own Python.

    dfc_worker  the half that runs in the SDK's Python, as a lone file; started, never imported
    log         what really ran, from the SDK's log, compared with the script
    listen      follow the log: milestones for the console, facts, last lines
    process     the worker as a process: commands, events, its end
    known       what the SDK is known to say when it fails, each with its cure
    failures    failures of the SDK -> one sentence with a cure, and the exit code
    graph       the parsed network: names of its layers, and our heads in it
    find        the Python that has the SDK
    versions    which release compiles for which chip, on which Python
    machine     system, processor, memory, disk, graphics card
    client      the SDK as typed calls
    ready       find the SDK and check everything before its first real call
    calls       compare the SDK's calls with ours, for --check

Others use: calls, client, graph, log, machine, process, ready.
"""
