"""Does a job that acts on pressure finish where a plain one is killed, and at what price? Writes docs/survival.md.

``python -m bench.survival [SCENARIO ...] [--runs N]``, as root: real memory cgroups without swap, real processes, a
real sampler beside them. A scenario is one file of ``scenarios/``; what its runs showed is stored after each of them in
``results/SCENARIO.json``, and the page is made of all that is stored, so that one scenario can be run again alone.
On a machine that does other things too: ``nice -n -5``, for a sampler without a CPU is a dead one.
"""
