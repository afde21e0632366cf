"""Ablations: arms times seeds, trained and measured by a queue that survives, compared seed by seed.

:mod:`~gancore.ablation.arms` says what is compared, :mod:`~gancore.ablation.plan` keeps it,
:mod:`~gancore.ablation.jobs` reads from the run folders how far it is, :mod:`~gancore.ablation.queue` runs the
rest, :mod:`~gancore.ablation.results` compares. None of them imports torch: every run is a process of its own.
"""
