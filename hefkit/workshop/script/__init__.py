"""Hailo model scripts: read one, check every line, add what hefkit knows, write it for the compiler.

    commands  a script as data: its commands, and the settings that they state
    grammar   text <-> commands
    forms     kinds of values, and the form of a command made of them
    tables    the commands of real scripts, and what each takes
    cures     wrong lines that users are known to write, each with what to write instead
    rules     the rules for a single command
    lint      errors and warnings of a whole script
    read      a file or a text -> script; text that is not a statement is refused
    compose   base file + flags + network + pictures -> the script that the compiler gets

Others use: commands, compose, grammar, lint, read.
"""
