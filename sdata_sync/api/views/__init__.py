"""Answer requests.

=============  ===================================================================
``base``       what all views share
``sync``       ``$syncDigest``, ``$syncSource``, ``$syncTarget``, ``$syncResults``
``linked``     ``$linked``
``resources``  collections and single resources
``schema``     ``$schema``
``metrics``    metrics for Prometheus
=============  ===================================================================
"""
