"""Serve the protocol's URLs as views of Django REST framework."""
