"""`--mqtt`: detections, counts and the detector's state on an MQTT broker, and its entities in Home Assistant.

    sink      what is published, and when
    messages  the topics, and the retained messages on them
    link      the connection to the broker, which paho-mqtt keeps

Others use: sink.
"""
