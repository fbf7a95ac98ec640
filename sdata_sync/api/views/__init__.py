"""Answer requests.

=============  ===================================================================
``base``       the base class of the views, and helpers
``sync``       ``$syncDigest``, ``$syncSource``, ``$syncTarget``, ``$syncResults``
``linked``     ``$linked``
``resources``  collections and single resources
``schema``     ``$schema``
``metrics``    metrics for Prometheus
=============  ===================================================================
"""
