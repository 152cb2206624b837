"""How good and how fast a model is.

    labels     the label file of a picture -> boxes; the labelled pictures of a data.yaml
    draws      random samples of the pictures, for intervals
    accuracy   match two sets of boxes; agreement of two models; noise of tensors
    coco       average precision, as COCO defines it
    bootstrap  the interval of the share that is kept
    passes     one pass of a model over the pictures
    evidence   measurements that show why a model is bad: experiments, reach of tensors, classes
    causes     evidence -> likely causes with their cures
    verdict    figures -> one sentence with a level
    validate   several models on the same pictures, from the files to the verdict
    summary    the table for people, and the gates
    speed      an engine alone, and the share of its rate that the pipeline reaches
    report     the page of a validation: HTML, JSON, pictures

Others use: accuracy, labels, speed, summary, validate, verdict.
"""
