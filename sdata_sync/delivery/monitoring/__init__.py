"""Report how synchronisation stands.

===========  ================================
``status``   the status of each kind and peer
``health``   problems, for monitoring systems
``metrics``  metrics for Prometheus
===========  ================================
"""
