"""Aliases of delivery backends under their former dotted paths; ``delivery`` adds this folder to its path.

==========  ==================
``thread``  ``ThreadDelivery``
``worker``  ``WorkerDelivery``
``manual``  ``ManualDelivery``
``celery``  ``CeleryDelivery``
``tasks``   ``TaskDelivery``
==========  ==================
"""
