"""Link existing rows with the rows of a peer on an admin page, as ``manage.py sync_link`` does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse

from ..delivery.client import PeerClient
from ..delivery.match import Candidate, Certainty, find_candidates, link_pairs
from ..exceptions import PeerError
from ..models import Peer
from ..registry import registry

if TYPE_CHECKING:
    from ..kind import Kind

#: The greatest number of candidates on the page, not counting the certain ones.
SHOWN = 500


def link_page(site: admin.AdminSite, request: HttpRequest, pk: int, kind_name: str = "") -> HttpResponseBase:
    """Show the link candidates of one kind, and link the pairs that the user has selected.

    Raises:
        PermissionDenied: the user may not change peers.
        Http404: there is no such peer, or no kind has ``match_on``.
    """
    if not request.user.has_perm("sdata_sync.change_peer"):
        raise PermissionDenied
    peer = Peer.objects.filter(pk=pk).first()
    kinds = [kind.name for kind in registry if type(kind.declared).match_on]
    kind = registry.of_kind(kind_name or (kinds[0] if kinds else ""))
    if peer is None or kind is None:
        raise Http404("There is no such peer, or no registered kind has match_on.")
    candidates, problem = _candidates(peer, kind)
    if request.method == "POST" and not problem:
        _link(request, peer, kind, candidates)
        return HttpResponseRedirect(request.path)
    return TemplateResponse(
        request,
        "admin/sdata_sync/link.html",
        {**site.each_context(request), **_context(peer, kind, kinds, candidates), "problem": problem},
    )


def _candidates(peer: Peer, kind: Kind) -> tuple[list[Candidate], str]:
    try:
        with PeerClient.for_peer(peer) as client:
            return find_candidates(client, peer, kind), ""
    except (PeerError, ValueError) as error:
        return [], str(error)


def _context(peer: Peer, kind: Kind, kinds: list[str], candidates: list[Candidate]) -> dict[str, Any]:
    match_on = type(kind.declared).match_on
    doubtful = [candidate for candidate in candidates if candidate.certainty is not Certainty.CERTAIN]
    counts = Counter(str(candidate.certainty) for candidate in candidates)
    return {
        "title": f"Link existing rows with {peer}",
        "peer": peer,
        "kind": kind,
        "kinds": kinds,
        "matched_on": "a custom comparison" if callable(match_on) else ", ".join(match_on or ()),
        "counts": {str(sort): counts[str(sort)] for sort in Certainty},
        "shown": doubtful[:SHOWN],
        "left_out": max(len(doubtful) - SHOWN, 0),
    }


def _link(request: HttpRequest, peer: Peer, kind: Kind, candidates: Iterable[Candidate]) -> None:
    wins = request.POST.get("wins")
    if wins not in ("here", "there"):
        messages.error(request, "Choose whose content linked rows keep, this node's or the peer's, then link again.")
        return
    chosen = set(request.POST.getlist("pair"))
    with_certain = request.POST.get("certain") == "yes"
    # Only pairs that this request has found are linked: the page may have been loaded long ago.
    pairs: list[tuple[str, UUID]] = [
        (candidate.local_key, candidate.uuid)
        for candidate in candidates
        if f"{candidate.local_key} {candidate.uuid}" in chosen
        or (with_certain and candidate.certainty is Certainty.CERTAIN)
    ]
    outcome = link_pairs(kind, peer, pairs, ours_win=wins == "here")
    messages.success(request, f"{outcome.linked} pairs linked. They are in sync after the next catch-up.")
    for text in outcome.refused:
        messages.error(request, text)
