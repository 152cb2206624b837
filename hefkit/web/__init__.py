"""`--web`: the live picture, the statistics and a pause button as a web page, served with aiohttp.

    sink        the address, the token, and the thread that serves
    server      what each path answers
    guard       who may see the page, and how many connections there may be
    token_file  a token that stays the same
    frames      the newest picture, encoded once for all viewers
    page        the page itself, and the form that asks for the token

Others use: sink, token_file.
"""
