"""Reports: one self-contained HTML page of a run, of several runs, or of an ablation. Imports no torch.

:mod:`~gancore.report.page` renders templates, :mod:`~gancore.report.charts` draws; both need the extra
``gancore[report]``.
"""
