"""Energies, attacks, losses, samplers and records behind the companion's notebooks.

Nothing is imported here, so that `from helpers import parameters` starts in
milliseconds and without torch; import the module that you need by its name.
"""
