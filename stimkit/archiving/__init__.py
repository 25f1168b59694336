"""A run, what is told about it and what was done with it, as one archive for a repository such as OSF or Zenodo.

paths    a copy of a run folder without paths of the machine that it was made on
answers  joined answers as a Psych-DS dataset
papers   README, LICENCE and CITATION.cff
archive  a run with all of these -> one ZIP archive
"""
