"""What the README promises, with real servers. A test in ``tests/test_house.py`` compares the names with the sentences."""

import pytest

from testproject.nodes import wait_until

from .test_two_nodes import make_pair, names, no_losses, wait_level

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("promises")]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    nodes = make_pair(
        tmp_path_factory.mktemp("promises"), environment={"DJANGO_SETTINGS_MODULE": "tests.acceptance.settings"}
    )
    yield nodes
    for node in nodes:
        node.close()


def test_a_committed_save_is_sent_to_each_peer_without_a_command(pair):
    shop, branch = pair
    shop.run("Account.objects.create(name='Of the shop')")
    branch.run("Account.objects.create(name='Of the branch')")
    wait_until(lambda: {"Of the shop", "Of the branch"} <= set(names(shop)), what="the branch's account at the shop")
    wait_until(lambda: {"Of the shop", "Of the branch"} <= set(names(branch)), what="the shop's account at the branch")


def test_what_is_rolled_back_is_never_sent(pair):
    shop, branch = pair
    shop.run(
        "try:\n"
        "    with transaction.atomic():\n"
        "        Account.objects.create(name='Rolled back')\n"
        "        raise KeyError\n"
        "except KeyError:\n"
        "    Account.objects.create(name='Afterwards')"
    )
    wait_until(lambda: "Afterwards" in names(branch), what="the account that was committed afterwards")
    wait_level(shop, branch)
    assert "Rolled back" not in names(branch)


def test_a_change_that_a_peer_has_missed_is_sent_when_the_peer_is_back(pair):
    shop, branch = pair
    branch.kill()
    shop.run("Account.objects.create(name='Missed')")
    branch.serve()
    wait_until(lambda: "Missed" in names(branch), what="the account that the branch had missed")
    wait_level(shop, branch)
    no_losses(shop, branch)
