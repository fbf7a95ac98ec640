"""A database that is migrated once: the nodes begin as copies of it."""

import pytest

from testproject.nodes import Node


@pytest.fixture(scope="session", autouse=True)
def _template(tmp_path_factory):
    template = Node("template", tmp_path_factory.mktemp("template"))
    try:
        template.create()
        template.end_driver()
        Node.template = template
        yield
    finally:
        Node.template = None
        template.close()
