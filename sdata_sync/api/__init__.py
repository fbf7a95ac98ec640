"""Answer HTTP requests of peers and clients.

===============  ================================
``urls``         the URLs below the dataset URL
``permissions``  who may do what
``negotiation``  media types
``parsers``      read request bodies
``renderers``    write response bodies
``errors``       answer exceptions with diagnoses
``views``        the views
===============  ================================
"""
