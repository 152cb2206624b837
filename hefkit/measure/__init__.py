"""How good and how fast a model is.

    labels    the label file of a picture -> boxes
    accuracy  match two sets of boxes; agreement of two models; average precision
    speed     an engine alone, and the share of its rate that the pipeline reaches

Others use: accuracy, labels, speed.
"""
