"""Assign ticks to captured changes (SData sync 2.2).

===============  ====================================================
``restore_gap``  notice that this node was restored from a backup
``stamper``      assign ticks to marked resources, advance the digest
``lower_tick``   lower ticks that a false claim has raised
``scan``         find changes that no signal reported
``purge``        remove tombstones and endpoints
``erase``        erase what is stored of one resource beside its row
===============  ====================================================
"""
