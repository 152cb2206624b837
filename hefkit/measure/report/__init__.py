"""The report of a validation: one page that needs nothing else, its figures as JSON, and its pictures.

    steps     what to do next, as commands
    pictures  the worst and some typical pictures, drawn side by side
    plots     curves and histograms as SVG (matplotlib)
    page      everything -> one HTML page (Jinja2); `page.html` is its template
    write     the folder of a report

Others use: plots, write.
"""
