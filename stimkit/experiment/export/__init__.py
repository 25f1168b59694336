"""Stimulus sets in the forms that other programs read.

stimulus_set    run folder (and trial design) -> StimulusSet, what every format writes
dictionary      what its columns are
tables          CSV and Parquet              psychopy     conditions files and an experiment
bids            a dataset with stimuli       jspsych      a page for the browser (jspsych_library: what it loads)
brainio         CSV, ZIP and SHA-1           formats      names of formats -> their writers
"""
