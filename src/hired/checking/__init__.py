"""Whether HiRED works on a checkpoint: what ``hired check`` runs.

Importing this module loads nothing heavy; the checks are in `hired.checking.run`.
"""
