"""Stimulus sets in the forms that other programs read.

stimulus_set     a run (and a trial design) -> StimulusSet, what every format writes
data_dictionary  what its columns are
presentation     what an experiment needs to know beside its trials
tables           CSV and Parquet
psychopy         conditions files and an experiment
jspsych_library  jsPsych and its plugins, by digest
jspsych          a page for the browser
bids             a BIDS dataset of stimuli
brainio          CSV, ZIP and SHA-1
formats          names of formats -> their writers
"""
