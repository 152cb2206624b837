"""HEF files, read without HailoRT: what they hold, on which chip they run, which outputs are boxes and which classes.

    container  header, lengths and checksum of a HEF
    wire       protobuf's wire format, with bounds on depth, counts and bytes
    schema     the messages of a HEF that are read
    streams    layers between chip and host -> virtual streams
    hostops    what HailoRT computes on the host: NMS, softmax, argmax
    groups     network groups, and the order of their outputs
    file       a whole HEF
    ranges     the range of a tensor's values: probabilities, logits or neither
    heads      which output is a box tensor and which a class tensor, and why
    match      outputs of a HEF -> heads of a model, by its spec or by the file alone
    table      a HEF as a table
    words      a HEF in words, and compared with its spec

Others use: file, match, ranges, streams, table, words.
"""
